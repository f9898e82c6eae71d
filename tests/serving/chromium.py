"""Drives headless Chromium over its DevTools protocol: real mouse events, files dropped in, screenshots."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import aiohttp
import numpy as np

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium():
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page. All waiting ends after `seconds` with an error."""

    def __init__(self, socket, seconds=60):
        self._socket = socket
        self._seconds = seconds
        self._number = 0
        self.problems = []

    async def call(self, method, **parameters):
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = json.loads((await self._socket.receive(timeout=self._seconds)).data)
            if message.get("method") == "Runtime.exceptionThrown":
                self.problems.append(message["params"]["exceptionDetails"])
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.problems.append(message["params"]["entry"])
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    async def open(self, url):
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.show_on(1100, 1000)
        await self.call("Page.navigate", url=url)
        await self.wait_for("document.readyState === 'complete'")

    async def evaluate(self, expression):
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def wait_for(self, expression):
        end = time.monotonic() + self._seconds
        while not await self.evaluate(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression} did not become true; status: {await self.evaluate(STATUS)}")
            await asyncio.sleep(0.05)

    async def centre(self, selector, across=0.5, down=0.5):
        box = await self.evaluate(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    async def click(self, selector, across=0.5, down=0.5):
        x, y = await self.centre(selector, across, down)
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def move(self, selector, across=0.5, down=0.5):
        """The mouse, without a button."""
        x, y = await self.centre(selector, across, down)
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def press(self, key, shift=False):
        """A key, such as "ArrowLeft" or "Enter", for whatever has the focus."""
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=8 if shift else 0)

    async def show_on(self, width, height, dark=False):
        """A screen of this size, in light or dark colours."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def drop_file(self, selector, path):
        x, y = await self.centre(selector)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            await self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    async def screenshot(self, path):
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(answer["data"]))


LEGEND = "[...document.querySelectorAll('#legend .name')].map(item => item.textContent)"
STATUS = "document.getElementById('status')?.textContent"


@contextlib.asynccontextmanager
async def browser():
    """A fresh Chromium with one empty page."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            find_chromium(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = await _debugging_port(Path(profile))
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    pages = [page for page in await response.json() if page["type"] == "page"]
                async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield Browser(socket)
        finally:
            process.terminate()
            process.wait(20)


async def _debugging_port(profile):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int((profile / "DevToolsActivePort").read_text().splitlines()[0])
        await asyncio.sleep(0.05)
    raise TimeoutError("Chromium did not start within a minute")


async def pixels(page, selector, size):
    """uint8 [H, W, 4] of a canvas."""
    canvas = f"const c = document.querySelector({selector!r})"
    values = await page.evaluate(
        f"(() => {{ {canvas}; return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }})()"
    )
    return np.array(values, np.uint8).reshape(*size, 4)


async def screenshot(page, name):
    """Goes to the folder that PSANET_SCREENSHOTS names, or nowhere."""
    if folder := os.environ.get("PSANET_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        await page.screenshot(Path(folder) / f"{name}.png")
