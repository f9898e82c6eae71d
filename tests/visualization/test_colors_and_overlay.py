"""Label maps as colours, overlays, legends."""

import numpy as np
import pytest
from PIL import Image

from psanet_tf.data.catalog import dataset_info
from psanet_tf.visualization.colors import IGNORED_COLOR, colorize, save_label_png
from psanet_tf.visualization.legend import legend_strip
from psanet_tf.visualization.overlay import class_shares, overlay

COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], "uint8")
NAMES = ("red things", "green things", "blue things")


def test_colorize_looks_up_classes_and_ignored():
    colored = colorize(np.array([[0, 2], [255, 1]]), COLORS)
    np.testing.assert_array_equal(colored, [[COLORS[0], COLORS[2]], [IGNORED_COLOR, COLORS[1]]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.array([[3]]), "labels hold 3"), (np.array([[-1]]), "labels hold -1"), (np.zeros((2, 2)), "integers")],
)
def test_impossible_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        colorize(labels, COLORS)


def test_label_png_holds_indices_with_and_without_palette(tmp_path):
    labels = np.array([[0, 1, 2, 255]])
    save_label_png(tmp_path / "palette.png", labels, COLORS)
    save_label_png(tmp_path / "grey.png", labels)
    palette, grey = Image.open(tmp_path / "palette.png"), Image.open(tmp_path / "grey.png")
    assert (palette.mode, grey.mode) == ("P", "L")
    np.testing.assert_array_equal(np.asarray(palette), labels)
    np.testing.assert_array_equal(np.asarray(grey), labels)
    np.testing.assert_array_equal(np.asarray(palette.convert("RGB")), colorize(labels, COLORS))


def test_overlay_blends_and_shows_ignored_pixels_as_they_are():
    image = np.full((2, 2, 3), 100, "uint8")
    result = overlay(image, np.array([[0, 255], [1, 255]]), COLORS, opacity=0.5)
    np.testing.assert_allclose(result[0, 0], [177, 50, 50], atol=1)
    np.testing.assert_array_equal(result[:, 1], image[:, 1])


def test_overlay_has_the_images_size_with_and_without_legend():
    image = np.zeros((200, 300, 3), "uint8")
    labels = np.zeros((200, 300), int)
    plain, with_legend = overlay(image, labels, COLORS), overlay(image, labels, COLORS, NAMES)
    assert with_legend.shape == image.shape
    different = (plain != with_legend).any(-1)
    rows, columns = np.nonzero(different)
    # One panel in the lower left corner, under a third of the image.
    assert rows.max() == 199
    assert columns.min() == 0
    assert 0.005 < different.mean() < 0.3


def test_an_image_too_small_for_a_legend_has_none():
    image, labels = np.zeros((6, 6, 3), "uint8"), np.zeros((6, 6), int)
    np.testing.assert_array_equal(overlay(image, labels, COLORS, NAMES), overlay(image, labels, COLORS))


def test_many_classes_do_not_cover_the_image():
    info = dataset_info("ade20k")
    labels = np.arange(400 * 300).reshape(300, 400) % 150
    image = np.zeros((300, 400, 3), "uint8")
    different = overlay(image, labels, info.colors, info.class_names) != overlay(image, labels, info.colors)
    assert 0.02 < different.any(-1).mean() <= 0.3


def test_overlay_of_another_size():
    with pytest.raises(ValueError, match="one size"):
        overlay(np.zeros((4, 4, 3), "uint8"), np.zeros((4, 5), int), COLORS)


def test_class_shares_are_sorted_and_leave_ignored_out():
    assert class_shares(np.array([[2, 2, 2, 0], [255, 255, 255, 255]])) == [(2, 0.75), (0, 0.25)]
    assert class_shares(np.full((2, 2), 255)) == []


def test_legend_strip_shows_every_color_and_wraps():
    shares = [(0, 0.5), (1, 0.3), (2, 0.2)]
    wide, narrow = (np.asarray(legend_strip(shares, COLORS, NAMES, width)) for width in (700, 200))
    assert (wide.shape[1], narrow.shape[1]) == (700, 200)
    assert narrow.shape[0] > wide.shape[0]
    for strip in (wide, narrow):
        for color in COLORS:
            assert (strip == color).all(-1).sum() > 50
