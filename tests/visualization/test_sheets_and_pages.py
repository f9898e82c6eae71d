"""Sheets, confusion matrices, heat maps, HTML pages."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from psanet_tf.visualization.confusion import confusion_image
from psanet_tf.visualization.heatmap import attention_atlas, heat_colors, heat_overlay
from psanet_tf.visualization.pages import data_uri, fitted, write_page
from psanet_tf.visualization.sheet import image_sheet


def _flat(height, width, color):
    return np.full((height, width, 3), color, "uint8")


def test_sheet_keeps_images_in_their_places():
    rows = [[_flat(10, 20, (255, 0, 0)), _flat(10, 20, (0, 255, 0))], [_flat(30, 20, (0, 0, 255))]]
    sheet = image_sheet(rows)
    assert sheet.shape == (8 + 10 + 8 + 30 + 8, 8 + 2 * 28, 3)
    np.testing.assert_array_equal(sheet[8:18, 8:28], rows[0][0])
    np.testing.assert_array_equal(sheet[8:18, 36:56], rows[0][1])
    np.testing.assert_array_equal(sheet[26:56, 8:28], rows[1][0])


def test_sheet_scales_to_the_cell_and_makes_room_for_text():
    image = np.kron(np.array([[[255, 0, 0], [0, 0, 255]]], "uint8"), np.ones((10, 10, 1), "uint8"))
    plain = image_sheet([[image]], cell_width=40)
    assert plain.shape == (8 + 20 + 8, 56, 3)
    # Enlarged without mixing colours.
    assert {tuple(color) for color in plain[8:28, 8:48].reshape(-1, 3)} == {(255, 0, 0), (0, 0, 255)}
    text = image_sheet([[image]], ["a title"], ["a caption that is longer than the image is wide"], cell_width=40)
    assert text.shape[0] == plain.shape[0] + 2 * 22
    footer = Image.new("RGB", (90, 7), "black")
    assert image_sheet([[image]], footer=footer).shape == (8 + 10 + 8 + 7, 90, 3)


@pytest.mark.parametrize("rows", [[], [[]]])
def test_sheet_without_images(rows):
    with pytest.raises(ValueError, match="at least one image"):
        image_sheet(rows)


def test_confusion_colours_follow_the_shares():
    confusion = np.array([[90, 10, 0], [0, 0, 0], [0, 0, 5]])
    image = confusion_image(confusion, ("a", "b", "c"))
    cell = 44
    corner = image.shape[0] - 10 - 3 * cell, image.shape[1] - 10 - 3 * cell

    def color(row, column):
        # Beside the number in the middle of the cell.
        return image[corner[0] + row * cell + 5, corner[1] + column * cell + 5].tolist()

    assert color(2, 2) == [8, 48, 107]
    assert color(0, 2) == [255, 255, 255]
    assert color(1, 0) == color(1, 1) == [225, 225, 225]
    assert color(0, 0)[0] < color(0, 1)[0] < 255


def test_confusion_of_many_classes_stays_an_image():
    image = confusion_image(np.eye(150), [f"class {index}" for index in range(150)])
    assert 1350 < image.shape[0] < 1700


def test_confusion_needs_a_name_per_class():
    with pytest.raises(ValueError, match="2 class names"):
        confusion_image(np.eye(3), ("a", "b"))


def test_heat_is_brightest_where_the_weight_is_largest():
    heat = np.zeros((20, 30))
    heat[4, 7] = 1e-3
    result = heat_overlay(_flat(20, 30, (128, 128, 128)), heat).astype(int).sum(-1)
    assert np.unravel_index(result.argmax(), result.shape) == (4, 7)
    with pytest.raises(ValueError, match="one size"):
        heat_overlay(_flat(20, 30, (0, 0, 0)), np.zeros((30, 20)))


def test_heat_colors_get_brighter_all_the_way():
    brightness = heat_colors().astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > -1).all()
    assert brightness[-1] - brightness[0] > 200


def test_atlas_puts_each_map_at_its_point():
    maps = np.random.default_rng(0).uniform(size=(6, 4, 5))
    atlas = attention_atlas(maps, 2, 3)
    assert atlas.shape == (8, 15)
    tile = atlas[4:8, 5:10]  # row 1, column 1: point 4
    np.testing.assert_array_equal(tile, np.round(maps[4] / maps[4].max() * 255))


def test_data_uri_holds_the_image():
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype("uint8")
    kind, text = data_uri(image).split(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))), image)
    assert data_uri(image, quality=90).startswith("data:image/jpeg;base64,")


def test_fitted_reduces_and_never_enlarges():
    image = np.kron(np.array([[[255, 0, 0], [0, 0, 255]]], "uint8"), np.ones((10, 9, 1), "uint8"))
    assert fitted(image, 50) is image
    reduced = fitted(image, 7, flat=True)
    assert reduced.shape == (4, 7, 3)
    assert {tuple(color) for color in reduced.reshape(-1, 3)} == {(255, 0, 0), (0, 0, 255)}


def test_pages_escape_what_they_show(tmp_path):
    view = {"name": "<script>alert(1)</script>", "image": "data:,", "rows": 1, "columns": 1, "tile_height": 1}
    view |= {"tile_width": 1, "atlases": {"collect": "data:,"}, "peaks": {"collect": [1.0]}}
    write_page(tmp_path / "page.html", "attention.html.j2", views=[view], heat_colors=[[0, 0, 0]])
    text = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in text
    assert re.search("&lt;script&gt;alert", text)
