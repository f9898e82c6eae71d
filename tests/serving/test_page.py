"""The browser page in headless Chromium: an image dropped in, a real click, what is then on the screen."""

import asyncio
import re
import shutil

import numpy as np
import pytest
from chromium import LEGEND, STATUS, browser, find_chromium, pixels, screenshot
from PIL import Image

from psanet_tf.export.verification import made_image
from psanet_tf.inference.attention import Placement
from psanet_tf.serving.server.server import Server

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here (Debian's package: chromium)")

MAPS = "#maps figure > canvas"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "blobs.png"
    Image.fromarray(made_image((160, 240), seed=5)).save(path)
    return path


def test_drop_an_image_and_click_a_point(window, classes, server, image):
    labels = window.labels(np.asarray(Image.open(image)))

    async def visit():
        async with browser() as page:
            await page.open(f"http://127.0.0.1:{server.rest_port}/")
            await screenshot(page, "1-empty")
            await page.drop_file("#drop", image)
            await page.wait_for("!document.getElementById('side').hidden && !document.body.ariaBusy")
            await screenshot(page, "2-labelled")
            overlay = await pixels(page, "#overlay", (160, 240))
            assert (overlay[..., :3] == classes.colors[labels]).all(-1).mean() >= 0.999
            found = {classes.class_names[label] for label in np.unique(labels)}
            assert set(await page.evaluate(LEGEND)) == found
            assert (await page.evaluate(STATUS)).startswith("240 \u00d7 160 pixels, ")
            assert (await page.evaluate(STATUS)).endswith(" s, version 1.")

            await page.click("#image", across=0.25, down=0.75)
            await page.wait_for("!document.getElementById('attention').hidden && !document.body.ariaBusy")
            await screenshot(page, "3-attention")
            x, y = map(int, re.fullmatch(r"Attention at (\d+), (\d+)\.", await page.evaluate(STATUS)).groups())
            assert abs(x - 60) <= 1 and abs(y - 120) <= 1  # the mouse moves in whole pixels of the screen
            maps = await page.evaluate(f"[...document.querySelectorAll('{MAPS}')].map(c => c.dataset.direction)")
            assert maps == ["collect", "distribute"]
            heat = (await pixels(page, MAPS, (160, 240))).astype(int)
            # The image beneath is grey, without any difference; weights are red to yellow.
            assert (heat[..., 0] - heat[..., 2]).max() > 30
            assert page.problems == []

    asyncio.run(visit())


def test_a_map_that_begins_inside_the_image_goes_on_to_its_borders(server):
    """As `Placement.to_image` puts it, for features of which the first looks at pixel (12, 8) and the next 16 on."""
    size, maps = (48, 64), np.eye(2, 3, dtype="float32")
    place = Placement(size, size, (0, 0), size, maps.shape, (12, 8), (16, 16))
    box = [(edge - 0.5 - first) / 16 for edge, first in ((0, 12), (0, 8), (48, 12), (64, 8))]

    async def visit():
        async with browser() as page:
            await page.open(f"http://127.0.0.1:{server.rest_port}/")
            figure = f"heatFigure('collect', new OffscreenCanvas(64, 48), {maps.tolist()}, {box}, 63, 0)"
            await page.evaluate(
                f"import('/attention.js').then(({{ heatFigure }}) => document.getElementById('maps').append({figure}))"
            )
            drawn = (await pixels(page, MAPS, size)).astype(int)
            numbers = "[...document.querySelectorAll('.numbers span')].map(span => span.textContent)"
            assert await page.evaluate(numbers) == ["0", "0.25", "1"]
            assert page.problems == []
            return drawn

    drawn = asyncio.run(visit())
    heat = place.to_image(maps[None])[0]
    yellow, dark = drawn[heat == 1], drawn[heat == 0]
    assert len(yellow) > 100 and len(dark) > 100
    assert (yellow[:, 1] > 200).all()  # up to the corner, where the image reaches beyond the map
    unmarked = np.ones(size, bool)
    unmarked[:12, 50:] = False
    assert (drawn[(heat == 0) & unmarked][:, 3] < 30).all()


def test_a_turned_photograph_is_labelled_as_it_is_shown(window, classes, server, tmp_path):
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side, as a phone held upright writes it
    Image.fromarray(made_image((90, 120), seed=6)).save(path, quality=95, exif=exif)

    async def visit():
        async with browser() as page:
            await page.open(f"http://127.0.0.1:{server.rest_port}/")
            await page.drop_file("#drop", path)
            await page.wait_for("!document.getElementById('side').hidden && !document.body.ariaBusy")
            assert (await page.evaluate(STATUS)).startswith("90 \u00d7 120 pixels, ")
            assert page.problems == []
            return [await pixels(page, f"#{name}", (120, 90)) for name in ("image", "overlay")]

    image, overlay = asyncio.run(visit())
    labels = window.labels(np.ascontiguousarray(image[..., :3]))
    assert (overlay[..., :3] == classes.colors[labels]).all(-1).mean() >= 0.999


def test_errors_are_shown_in_words(server, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    tall = tmp_path / "tall.png"
    Image.fromarray(made_image((40, 30))).save(tall)

    async def visit():
        async with browser() as page:
            await page.open(f"http://127.0.0.1:{server.rest_port}/")
            await page.drop_file("#drop", tmp_path / "text.png")
            await page.wait_for("document.getElementById('status').className === 'error'")
            assert "text.png is not an image" in await page.evaluate(STATUS)
            wrong = f"http://127.0.0.1:{server.rest_port}/v1/models/other"
            await page.evaluate(f"document.getElementById('server').value = {wrong!r}")
            await page.drop_file("#drop", tall)
            await page.wait_for("document.getElementById('status').textContent.includes('other')")
            assert await page.evaluate(STATUS) == (
                "There is no such model on the server (Could not find any versions of model other)."
            )
            await screenshot(page, "4-error")

    asyncio.run(visit())


def test_the_page_works_with_a_server_elsewhere_that_allows_it(model_folder, server, image, tmp_path):
    async def visit(other):
        async with browser() as page:
            # The page from one server, the model from another one: to the browser that is another origin.
            model = f"http://127.0.0.1:{other.rest_port}/v1/models/psanet"
            await page.open(f"http://127.0.0.1:{server.rest_port}/")
            await page.evaluate(f"document.getElementById('server').value = {model!r}")
            await page.drop_file("#drop", image)
            await page.wait_for("!document.getElementById('side').hidden && !document.body.ariaBusy")
            assert len(await page.evaluate(LEGEND)) > 2
            assert page.problems == []

    # Without warm-up: the one image takes a part of its time.
    folder = shutil.copytree(model_folder, tmp_path / "psanet", ignore=shutil.ignore_patterns("assets.extra"))
    with Server(folder, rest_port=0, grpc_port=None, cors=True) as other:
        asyncio.run(visit(other))
