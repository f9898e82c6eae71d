"""The browser page with a made server behind it: versions that change, refusals, the mouse, the keyboard, a phone."""

import asyncio
import base64
import io
import json

import numpy as np
import pytest
from chromium import LEGEND, STATUS, browser, find_chromium, pixels, screenshot
from PIL import Image

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here (Debian's package: chromium)")

# Answers as a model server does: `fake.version` takes requests, and no other.
FAKE = """
window.fake = {version: 1, refusal: null, requests: [], held: null, metadata: %s, labels: %s};
window.fetch = async (url, options = {}) => {
  const request = options.body ? JSON.parse(options.body) : {};
  const signature = request.signature_name ?? "status";
  fake.requests.push(`${signature} ${url.match(/versions\\/\\d+/) ?? "any version"}`);
  if (fake.held && signature === "predict_bytes") {
    await new Promise((resolve) => {
      fake.release = resolve;
      options.signal.addEventListener("abort", () => fake.requests.push("stopped"));
    });
  }
  const reply = (body, status = 200) => new Response(JSON.stringify(body), {status});
  if (fake.refusal && signature === "predict_bytes") return reply({error: fake.refusal[1]}, fake.refusal[0]);
  if (signature === "status") {
    const status = {error_code: "OK", error_message: ""};
    return reply({model_version_status: [{version: `${fake.version}`, state: "AVAILABLE", status}]});
  }
  if (!url.includes(`/versions/${fake.version}:predict`)) return reply({error: "Servable not found"}, 404);
  if (signature === "metadata") return reply({predictions: [JSON.stringify(fake.metadata[fake.version])]});
  if (signature === "predict_bytes") return reply({predictions: [{b64: fake.labels}]});
  const map = [[0.5, 0.1], [0.1, 0.3]];
  return reply({outputs: {collect: [[map]], distribute: [[map]], image_box: [[-0.5, -0.5, 1.5, 1.5]]}});
};
null
"""
COLORS = [[200, 30, 30], [30, 160, 60]]
SIZE = (40, 60)
LABELS = np.zeros(SIZE, np.uint8)
LABELS[:, 30:] = 1
LABELS[:4] = 255  # of no class


def metadata(*names):
    return {"class_names": names, "colors": COLORS, "max_pixels": 3000, "directions": ["collect", "distribute"]} | {
        "channels": 3,
        "dtype": "uint8",
    }


def visit(server, work, tmp_path, size=SIZE):
    """Opens the page before the made server, drops an image of `size` on it and goes on with `work`."""
    encoded = io.BytesIO()
    Image.fromarray(LABELS).save(encoded, "PNG")
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((*size, 3), 120, np.uint8)).save(path)

    async def run():
        async with browser() as page:
            await page.open(f"http://127.0.0.1:{server.rest_port}/")
            versions = {1: metadata("cat", "dog"), 2: metadata("bottle", "beacon")}
            data = base64.b64encode(encoded.getvalue()).decode()
            await page.evaluate(FAKE % (json.dumps(versions), json.dumps(data)))
            await page.drop_file("#drop", path)
            await page.wait_for("!document.body.ariaBusy && !document.getElementById('stage').hidden")
            await work(page)
            assert page.problems == []

    asyncio.run(run())


IDLE = "!document.body.ariaBusy"


def test_answers_and_names_are_of_one_version(server, tmp_path):
    async def work(page):
        assert sorted(await page.evaluate(LEGEND)) == ["cat", "dog", "no class (255)"]
        # A newer version takes over; a click asks the old one, which is gone.
        await page.evaluate("fake.version = 2; fake.requests = []; null")
        await page.click("#image")
        await page.wait_for(f"{IDLE} && document.getElementById('status').textContent.includes('version 2')")
        assert (await page.evaluate(STATUS)).startswith("The model has been replaced, so the image was labelled anew.")
        assert sorted(await page.evaluate(LEGEND)) == ["beacon", "bottle", "no class (255)"]
        assert await page.evaluate("fake.requests") == [
            "attention versions/1",
            "status any version",
            "metadata versions/2",
            "predict_bytes versions/2",
        ]

    visit(server, work, tmp_path)


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (503, "full", "The server has too much to do; try again in a moment (full)."),
        (413, "32 MB", "The picture's file is too large for the server (32 MB)."),
        (401, "no", "The server wants a token: enter it above."),
        (400, "image_bytes[0] is CMYK", "image_bytes[0] is CMYK"),
    ],
)
def test_refusals(server, tmp_path, status, text, words):
    async def work(page):
        await page.evaluate(f"fake.refusal = [{status}, {text!r}]; null")
        await page.drop_file("#stage", tmp_path / "picture.png")
        await page.wait_for(f"{IDLE} && document.getElementById('status').className === 'error'")
        assert await page.evaluate(STATUS) == words
        assert await page.evaluate("document.getElementById('token-field').hidden") == (status != 401)
        page.problems.clear()  # the browser itself notes a refused request

    visit(server, work, tmp_path)


def test_what_takes_too_long_can_be_cancelled(server, tmp_path):
    async def work(page):
        await page.evaluate("fake.held = true; null")
        await page.drop_file("#stage", tmp_path / "picture.png")
        await page.wait_for("fake.release && !document.getElementById('cancel').hidden")
        assert (await page.evaluate(STATUS)).startswith("Labelling picture.png")
        await page.click("#cancel")
        assert await page.evaluate(STATUS) == "Cancelled."
        assert await page.evaluate(f"{IDLE} && document.getElementById('cancel').hidden")
        assert await page.evaluate("fake.requests.at(-1)") == "stopped"
        # An answer that comes all the same is not shown.
        await page.evaluate("fake.release(); new Promise(resolve => setTimeout(resolve, 100))")
        assert await page.evaluate(STATUS) == "Cancelled."
        assert await page.evaluate("document.getElementById('side').hidden")
        await page.evaluate("fake.held = null; null")
        await page.drop_file("#stage", tmp_path / "picture.png")
        await page.wait_for(f"{IDLE} && !document.getElementById('side').hidden")

    visit(server, work, tmp_path)


def test_a_picture_that_is_too_large_is_not_sent(server, tmp_path):
    async def work(page):
        assert await page.evaluate(STATUS) == (
            "The picture has 0.0064 megapixels, the model takes at most 0.003: reduce it first."
        )
        assert "predict_bytes versions/1" not in await page.evaluate("fake.requests")

    visit(server, work, tmp_path, size=(80, 80))


def test_mouse_and_legend_show_classes(server, tmp_path):
    tip = "(tip => tip.hidden ? null : tip.textContent)(document.getElementById('tip'))"
    under = "[...document.querySelectorAll('.class.under .name')].map(item => item.textContent)"

    async def work(page):
        shares = await page.evaluate("[...document.querySelectorAll('.share')].map(item => item.textContent)")
        assert shares == ["45.0 %", "45.0 %", "10.0 %"]
        for across, down, name in ((0.2, 0.5, "cat"), (0.8, 0.5, "dog"), (0.5, 0.02, "no class (255)")):
            await page.move("#image", across, down)
            assert await page.evaluate(tip) == name
            assert await page.evaluate(under) == [name]
        await page.move("h1")
        assert await page.evaluate(tip) is None
        # A class in the legend: its pixels stay, the others grow faint; a click keeps it so.
        dog = ".class[data-label='1']"
        await page.move(dog)
        alpha = (await pixels(page, "#overlay", SIZE))[..., 3]
        np.testing.assert_array_equal(alpha == 255, LABELS == 1)
        await page.click(dog)
        await page.move("h1")
        np.testing.assert_array_equal((await pixels(page, "#overlay", SIZE))[..., 3], alpha)
        await page.click(dog)
        await page.move("h1")
        assert ((await pixels(page, "#overlay", SIZE))[..., 3] == 255).all()

    visit(server, work, tmp_path)


def test_attention_by_keyboard(server, tmp_path):
    async def work(page):
        await page.evaluate("document.getElementById('stage').focus(); null")
        for key in ("ArrowLeft", "ArrowLeft", "ArrowDown", "Enter"):
            await page.press(key)
        await page.wait_for(f"{IDLE} && !document.getElementById('attention').hidden")
        # From the middle, 30, 20: the first key shows the mark, the next ones move it.
        assert await page.evaluate(STATUS) == "Attention at 29, 21."
        assert await page.evaluate("document.getElementById('attention-title').textContent") == (
            "Attention of the point at 29, 21 (cat)"
        )
        await page.press("ArrowRight", shift=True)
        await page.press("Enter")
        await page.wait_for("document.getElementById('status').textContent === 'Attention at 35, 21.'")

    visit(server, work, tmp_path)


def test_downloads(server, tmp_path):
    async def work(page):
        await page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        for name in ("labels", "overlay"):
            await page.click(f"#save-{name}")
            path = tmp_path / f"picture_{name}.png"
            for _ in range(200):
                if path.exists():
                    break
                await asyncio.sleep(0.05)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "picture_labels.png")), LABELS)
        overlay = np.asarray(Image.open(tmp_path / "picture_overlay.png"))[..., :3].astype(int)
        for label, color in enumerate(COLORS):
            expected = 0.4 * 120 + 0.6 * np.array(color)
            assert abs(overlay[label == LABELS] - expected).max() <= 1

    visit(server, work, tmp_path)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)], ids=["phone", "desk"])
def test_nothing_hangs_over(server, tmp_path, width, height, dark):
    async def work(page):
        await page.show_on(width, height, dark)
        await page.click("#image", across=0.3)
        await page.wait_for(f"{IDLE} && !document.getElementById('attention').hidden")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await screenshot(page, f"page-{width}-{'dark' if dark else 'light'}")

    visit(server, work, tmp_path)
