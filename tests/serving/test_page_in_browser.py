"""The page that needs no server: an exported ONNX file, run by onnxruntime-web in headless Chromium."""

import asyncio
import contextlib
import dataclasses
import functools
import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from chromium import LEGEND, STATUS, browser, find_chromium, pixels, screenshot
from PIL import Image

from psanet_tf.config import EvaluateSection
from psanet_tf.export.model_file import export_file
from psanet_tf.export.verification import made_image
from psanet_tf.inference.segmenter import Segmenter

FOLDER = Path(__file__).parents[2] / "export/browser"
pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium here (Debian's package: chromium)"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules").is_dir() or shutil.which("node") is None,
        reason="no packages from npm here (npm ci in export/browser)",
    ),
]

SIZE = (110, 150)
IDLE = "!document.body.ariaBusy"
LABELLED = f"{IDLE} && !document.getElementById('side').hidden"
REFUSED = f"{IDLE} && document.getElementById('status').className === 'error'"
# What `psanet export` writes for each protocol; of the first, two scales and mirror images.
PROTOCOLS = {
    "slide": {"evaluate": EvaluateSection(base_size=60, scales=(0.75, 1.5), flip=True)},
    "whole": {"evaluate": EvaluateSection(base_size=60, scales=(1.25,), flip=True), "whole": True},
    "mmseg": {
        "evaluate": EvaluateSection(
            protocol="mmseg", mode="slide", scale=(90, 60), crop_size=(40, 33), stride=(27, 22), flip=True
        )
    },
    "own": {"evaluate": EvaluateSection(protocol="mmseg", mode="whole", scale=(90, 60)), "whole": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The built page, as a web server gives it."""
    out = tmp_path_factory.mktemp("site") / "dist"
    subprocess.run(["node", FOLDER / "build.mjs", out], check=True, capture_output=True, timeout=60)
    Image.fromarray(made_image(SIZE, seed=5)).save(out / "picture.png")
    return out


@pytest.fixture(scope="module")
def model(folder, network, make_network, classes):
    """`model("slide")` -> path of that export in the folder, made once."""
    pytest.importorskip("tf2onnx", reason="tf2onnx of the extra onnx is not installed")

    def exported(protocol):
        path = folder / f"{protocol}.onnx"
        if not path.exists():
            kind = make_network(variant="mmseg", mask_size=(6, 6)) if protocol in ("mmseg", "own") else network
            export_file(kind, path, classes, **PROTOCOLS[protocol])
        return path

    return exported


def serve(folder, headers=()):
    """A context with the address of a plain web server of `folder`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self):
            for name, value in headers:
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *arguments):
            pass

    @contextlib.contextmanager
    def serving():
        handler = functools.partial(Handler, directory=folder)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/"
            finally:
                server.shutdown()
                thread.join()

    return serving()


def visit(folder, query, work, headers=()):
    async def run(address):
        async with browser() as page:
            await page.open(f"{address}index.html{query}")
            await page.wait_for(IDLE)
            await work(page)
            assert page.problems == []

    with serve(folder, headers) as address:
        asyncio.run(run(address))


async def label(page, path):
    await page.drop_file("#drop", path)
    await page.wait_for(LABELLED)


def labels_of(overlay, colors):
    """Labels of the overlay's colours; 255 for a colour of no class."""
    equal = (overlay[..., None, :3] == colors).all(-1)
    return np.where(equal.any(-1), equal.argmax(-1), 255)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_labels_are_those_of_the_file_in_python(folder, model, classes, protocol):
    path = model(protocol)
    expected = Segmenter.load(path).labels(folder / "picture.png")

    async def work(page):
        assert (await page.evaluate(STATUS)).startswith(f"{path.name}: 21 classes, ")
        await label(page, folder / "picture.png")
        status = await page.evaluate(STATUS)
        assert status.startswith("150 \u00d7 110 pixels, ") and status.endswith(f" s, {path.name}.")
        found = labels_of(await pixels(page, "#overlay", SIZE), classes.colors)
        assert len(np.unique(expected)) > 2
        assert (found == expected).mean() >= 0.999
        names = {classes.class_names[index] for index in np.unique(expected)}
        assert set(await page.evaluate(LEGEND)) == names
        await page.move("#image", 0.3, 0.6)
        tip = await page.evaluate("document.getElementById('tip').textContent")
        x, y = int(0.3 * SIZE[1]), int(0.6 * SIZE[0])
        assert tip in {classes.class_names[each] for each in expected[y - 1 : y + 2, x - 1 : x + 2].ravel()}

    visit(folder, f"?model={path.name}", work)


ATTENTION = """
import('/main.js').then(async ({model}) => {
  const blob = await (await fetch(%s)).blob();
  const picture = await model.readPicture(new File([blob], 'picture.png'));
  const task = {signal: new AbortController().signal, progress() {}};
  const answer = {...await model.label(picture, task), picture};
  return Promise.all(%s.map(([x, y]) => model.attention(answer, x, y, task)));
})
"""


@pytest.mark.parametrize(
    ("protocol", "size"), [("slide", (33, 33)), ("slide", SIZE), ("whole", SIZE), ("own", (50, 70))]
)
def test_attention_is_that_of_the_file_in_python(folder, model, protocol, size):
    path = model(protocol)
    image = made_image(size, seed=7)
    Image.fromarray(image).save(folder / "seen.png")
    points = [(0, 0), (size[1] - 1, size[0] // 3), (size[1] // 2, size[0] - 1)]
    maps = Segmenter.load(path).attention(image, points)

    async def work(page):
        found = await page.evaluate(ATTENTION % (json.dumps("/seen.png"), json.dumps(points)))
        place = maps.placement
        box = [
            (edge + place.offset[axis] - 0.5 - place.first[axis]) / place.step[axis]
            for edges in ((0, 0), place.resized_size)
            for axis, edge in enumerate(edges)
        ]
        for index, answer in enumerate(found):
            assert [name for name, _ in answer["maps"]] == list(maps.directions())
            for (_, values), expected in zip(answer["maps"], maps.directions().values(), strict=True):
                np.testing.assert_allclose(values, expected[index], atol=1e-4)
            np.testing.assert_allclose(answer["box"], box, atol=1e-4)
            assert maps.collect[index].std() > 1e-3

    visit(folder, f"?model={path.name}", work)


def test_a_click_shows_the_attention_and_downloads_are_labels(folder, model, tmp_path):
    path = model("slide")
    expected = Segmenter.load(path).labels(folder / "picture.png")

    async def work(page):
        await screenshot(page, "browser-1-model")
        await label(page, folder / "picture.png")
        await screenshot(page, "browser-2-labelled")
        await page.click("#image", across=0.25, down=0.75)
        await page.wait_for(f"{IDLE} && !document.getElementById('attention').hidden")
        maps = "[...document.querySelectorAll('#maps figure > canvas')].map(c => c.dataset.direction)"
        assert await page.evaluate(maps) == ["collect", "distribute"]
        await screenshot(page, "browser-3-attention")
        await page.evaluate("document.getElementById('stage').focus(); null")
        await page.press("ArrowRight")
        await page.press("Enter")
        await page.wait_for(f"{IDLE} && document.getElementById('status').textContent.startsWith('Attention at 40')")
        await page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        await page.click("#save-labels")
        for _ in range(200):
            if (tmp_path / "picture_labels.png").exists():
                break
            await asyncio.sleep(0.05)

    visit(folder, f"?model={path.name}", work)
    saved = Image.open(tmp_path / "picture_labels.png")
    assert saved.mode == "L"
    assert (np.asarray(saved) == expected).mean() >= 0.999


def test_a_model_can_be_dropped_after_the_picture(folder, model, tmp_path):
    first, second = model("slide"), model("whole")

    async def work(page):
        assert (await page.evaluate(STATUS)).startswith("Choose a model first: an .onnx file that psanet export wrote.")
        await page.drop_file("#drop", folder / "picture.png")
        await page.wait_for(REFUSED)
        assert (await page.evaluate(STATUS)).startswith("Choose a model first")
        for path in (first, second):
            await page.drop_file("#drop", path)
            await page.wait_for(f"{LABELLED} && document.getElementById('model-name').textContent === {path.name!r}")
            assert (await page.evaluate(STATUS)).endswith(f" s, {path.name}.")

    visit(folder, "", work)


def test_a_turned_photograph_is_labelled_as_it_is_shown(folder, model, classes, tmp_path):
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side, as a phone held upright writes it
    Image.fromarray(made_image((90, 120), seed=6)).save(path, quality=95, exif=exif)
    segmenter = Segmenter.load(model("slide"))

    async def work(page):
        await label(page, path)
        assert (await page.evaluate(STATUS)).startswith("90 \u00d7 120 pixels, ")
        image, overlay = [await pixels(page, f"#{name}", (120, 90)) for name in ("image", "overlay")]
        expected = segmenter.labels(np.ascontiguousarray(image[..., :3]))
        assert (labels_of(overlay, classes.colors) == expected).mean() >= 0.999

    visit(folder, "?model=slide.onnx", work)


def test_labelling_can_be_cancelled(folder, model):
    model("slide")
    at_once = """
    const said = document.getElementById('status');
    window.watch = new MutationObserver(() => {
      if (/: 1 of \\d+ passes/.test(said.textContent)) document.getElementById('cancel').click();
    });
    watch.observe(said, {childList: true});
    null
    """

    async def work(page):
        await page.evaluate(at_once)
        await page.drop_file("#drop", folder / "picture.png")
        await page.wait_for("document.getElementById('status').textContent === 'Cancelled.'")
        assert await page.evaluate(f"{IDLE} && document.getElementById('cancel').hidden")
        assert await page.evaluate("document.getElementById('side').hidden")
        await page.evaluate("watch.disconnect(); null")
        await label(page, folder / "picture.png")
        assert (await page.evaluate(STATUS)).startswith("150 \u00d7 110 pixels, ")

    visit(folder, "?model=slide.onnx", work)


def with_metadata(path, out, **fields):
    """The file with other metadata; without any for `metadata=None`."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    (entry,) = model.metadata_props
    if fields == {"metadata": None}:
        del model.metadata_props[:]
    else:
        entry.value = json.dumps({**json.loads(entry.value), **fields})
    onnx.save(model, out)


def test_what_cannot_be_labelled_is_told_in_words(folder, model, tmp_path):
    good = model("slide")
    (tmp_path / "text.onnx").write_text("this is no model")
    (tmp_path / "half.onnx").write_bytes(good.read_bytes()[:20_000])
    with_metadata(good, tmp_path / "other.onnx", metadata=None)
    with_metadata(good, tmp_path / "small.onnx", max_pixels=3000)
    with_metadata(good, tmp_path / "bands.onnx", channels=4, mean=[0] * 4, std=[1] * 4)
    with_metadata(good, tmp_path / "many.onnx", scales=[300.0])
    (tmp_path / "text.png").write_text("no image")
    not_ours = "says nothing of its classes: psanet export did not write it, or a part of it is missing."
    refused = {
        "text.onnx": "text.onnx is no ONNX file, or is damaged.",
        "half.onnx": f"half.onnx {not_ours}",
        "other.onnx": f"other.onnx {not_ours}",
        "text.png": "text.png is not an image that this browser can read.",
    }
    of_picture = {
        "small.onnx": "The picture has 0.017 megapixels, the model takes at most 0.003: reduce it first.",
        "bands.onnx": "This model is for images of 4 channels (uint8); this page shows photographs alone.",
        "many.onnx": "Labelling this picture takes 20.0 GB for its probabilities, more than a tab has: take a smaller "
        "one, or a model that was exported with fewer scales or a smaller base_size.",
    }

    async def work(page):
        for name, words in {**refused, **of_picture}.items():
            await page.drop_file("#drop", tmp_path / name)
            if name in of_picture:
                await page.wait_for(f"{IDLE} && document.getElementById('model-name').textContent === {name!r}")
                await page.drop_file("#drop", folder / "picture.png")
            await page.wait_for(f"{REFUSED} && document.getElementById('status').textContent === {words!r}")
        await screenshot(page, "browser-4-error")
        await page.evaluate("WebAssembly.validate = () => false; null")
        await page.drop_file("#drop", good)
        await page.wait_for(
            f"{REFUSED} && document.getElementById('status').textContent.includes('WebAssembly with SIMD')"
        )

    visit(folder, "", work)


def test_a_model_that_is_not_there_is_told(folder):
    async def run(address):
        async with browser() as page:
            await page.open(f"{address}index.html?model=none.onnx")
            await page.wait_for(REFUSED)
            words = "none.onnx could not be fetched: the web server answered 404."
            assert await page.evaluate(STATUS) == words

    with serve(folder) as address:
        asyncio.run(run(address))


def test_threads_where_the_page_is_isolated(folder, model, classes):
    headers = [("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Embedder-Policy", "require-corp")]
    expected = Segmenter.load(model("slide")).labels(folder / "picture.png")

    async def work(page):
        assert await page.evaluate("self.crossOriginIsolated")
        await label(page, folder / "picture.png")
        found = labels_of(await pixels(page, "#overlay", SIZE), classes.colors)
        assert (found == expected).mean() >= 0.999

    visit(folder, "?model=slide.onnx", work, headers)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)], ids=["phone", "desk"])
def test_nothing_hangs_over(folder, model, width, height, dark):
    model("slide")

    async def work(page):
        await page.show_on(width, height, dark)
        await label(page, folder / "picture.png")
        await page.click("#image", across=0.3)
        await page.wait_for(f"{IDLE} && !document.getElementById('attention').hidden")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await screenshot(page, f"browser-{width}-{'dark' if dark else 'light'}")

    visit(folder, "?model=slide.onnx", work)


def test_a_build_without_packages_says_what_to_do(tmp_path):
    copy = tmp_path / "export/browser"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    page = Path("psanet_tf/serving/server/page")
    shutil.copytree(FOLDER.parents[1] / page, tmp_path / page)
    result = subprocess.run(["node", copy / "build.mjs"], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert result.stderr.endswith("is missing: run npm ci first\n")


def test_metadata_say_what_the_page_reads(model):
    """The page knows the names of fields only from what files hold: each must be one of `ModelMetadata`."""
    metadata = dataclasses.asdict(Segmenter.load(model("slide"))._labeler._file.metadata)
    read = {"protocol", "mode", "scales", "flip", "base_size", "crop_size", "stride_rate", "scale", "stride"}
    read |= {"align_corners", "mean", "std", "input_size", "directions", "class_names", "colors", "max_pixels"}
    assert read <= set(metadata)
