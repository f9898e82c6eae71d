"""A network in the browser: seconds to load it, to label a picture and to its first attention, and memory.

    python benchmarks/browser.py                            # PSANet-50 at 465 x 465, random weights, 150 classes
    python benchmarks/browser.py --model psanet.onnx        # any exported file
    python benchmarks/browser.py --width 8 --blocks 1 1 1 1 --crop 33    # to try it

It needs Chromium and what `npm ci` in export/browser installs. The page is driven as the tests do it, with the headers
that allow threads and without them; ONNX Runtime for Python runs a pass beside. A picture of the base size is labelled
by the model's own protocol, twice: seconds of all passes, with resizing and averaging. Memory is the largest resident
size of the tab's process.
"""

import argparse
import asyncio
import contextlib
import datetime
import functools
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from machine import processor
from PIL import Image

from psanet_tf import PSANet
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.export.frozen import frozen_graph
from psanet_tf.export.metadata import export_metadata
from psanet_tf.export.onnx import write
from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.model_file import open_model_file

ROOT = Path(__file__).parents[1]
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
MEASURED = """
import('/main.js').then(async ({model}) => {
  const blob = await (await fetch('/picture.png')).blob();
  const picture = await model.readPicture(new File([blob], 'picture.png'));
  let passes = 0;
  const task = {signal: new AbortController().signal, progress(text) { passes = Number(text.match(/of (\\d+) /)[1]); }};
  const timed = async (work) => { const begin = performance.now(); const done = await work();
    return [done, (performance.now() - begin) / 1000]; };
  const [answer, labels] = await timed(() => model.label(picture, task));
  const [found, attention] = await timed(() => model.attention({...answer, picture}, 3, 3, task));
  const [same, again] = await timed(() => model.label(picture, task));
  return {passes, labels, attention, again};
})
"""


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary:
        site = Path(temporary) / "dist"
        subprocess.run(["node", ROOT / "export/browser/build.mjs", site], check=True, stdout=subprocess.DEVNULL)
        exported(arguments, site / "model.onnx")
        file = open_model_file(site / "model.onnx")
        size = file.metadata.crop_size or file.metadata.input_size or (465, 465)
        long_side = file.metadata.base_size or max(size)
        Image.fromarray(made_image((round(0.75 * long_side), long_side))).save(site / "picture.png")
        print(
            f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; "
            f"{(site / 'model.onnx').stat().st_size / 1e6:.0f} MB, {size[0]} x {size[1]}, "
            f"{file.metadata.num_classes} classes\n"
        )
        print("| in | load, s | passes | labels, s | again, s | attention, s | memory, MB |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for name, headers in (("browser, one thread", {}), ("browser, threads", ISOLATED)):
            print(row(name, *in_browser(site, headers)), flush=True)
        print(row("Python", None, 1, None, in_python(file, size), None, None))


def exported(arguments, path):
    if arguments.model is not None:
        shutil.copy(arguments.model, path)
        return
    sizes = {} if arguments.blocks is None else {"blocks": tuple(arguments.blocks)}
    network = PSANet(150, width=arguments.width, input_shape=(arguments.crop, arguments.crop, 3), **sizes)
    evaluate = EvaluateSection(base_size=round(512 * arguments.crop / 465), flip=False)
    metadata = export_metadata(network, dataset_info("ade20k"), evaluate, format="onnx")
    write(frozen_graph(network, metadata), metadata, path)


def row(name, load, passes, labels, again, attention, memory):
    numbers = [
        "" if load is None else f"{load:.1f}",
        f"{passes}",
        "" if labels is None else f"{labels:.1f}",
        f"{again:.1f}",
        "" if attention is None else f"{attention:.1f}",
        "" if memory is None else f"{memory / 1e6:.0f}",
    ]
    return f"| {name} | {' | '.join(numbers)} |"


def in_browser(site, headers):
    sys.path.insert(0, str(ROOT / "tests/serving"))
    from chromium import browser

    async def measure(address):
        async with browser() as page:
            page._seconds = 590
            started = time.monotonic()
            await page.open(f"{address}?model=model.onnx")
            await page.wait_for("!document.body.ariaBusy")
            load = time.monotonic() - started
            found = await page.evaluate(MEASURED)
            return load, found["passes"], found["labels"], found["again"], found["attention"], tab_memory()

    with serving(site, headers) as address:
        return asyncio.run(measure(address))


def in_python(file, size, repetitions=3):
    image = made_image(size)[None]
    file.predict(image)
    started = time.perf_counter()
    for _ in range(repetitions):
        file.predict(image)
    return (time.perf_counter() - started) / repetitions


def tab_memory():
    """Bytes: the largest of the resident sizes that processes below this one have had."""
    parents, peaks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, KeyError):
            fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
            parents[int(folder.name)] = int(fields["PPid"])
            peaks[int(folder.name)] = int(fields["VmHWM"].split()[0]) * 1024

    def below(process):
        while process in parents:
            process = parents[process]
            if process == os.getpid():
                return True
        return False

    return max(peak for process, peak in peaks.items() if below(process))


@contextlib.contextmanager
def serving(folder, headers):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self):
            for name, value in headers.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="an .onnx file that psanet export wrote")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blocks", type=int, nargs=4)
    parser.add_argument("--crop", type=int, default=465, help="rows and columns of the crop")
    return parser.parse_args()


if __name__ == "__main__":
    main()
