"""What `check_split` counts and reports."""

import numpy as np
from PIL import Image

from psanet_tf.config.data import DataSection
from psanet_tf.data.catalog import dataset_info, distinct_colors
from psanet_tf.data.checking import SHOWN, check_split
from psanet_tf.data.layouts import list_files
from psanet_tf.data.readers import read_label


def test_classes_are_counted(scenes_config):
    data = scenes_config().data
    info = dataset_info("scenes")
    labels = np.stack([read_label(example.label_path, info) for example in list_files(data, "validation").examples])
    report = check_split(data, "validation")
    assert report.is_sound
    assert report.pixels.tolist() == [int((labels == index).sum()) for index in range(10)]
    assert report.ignored_pixels == 0
    assert f"{100 * (labels == 0).mean():.3f} %" in report.text(info)


def test_at_most_twenty_names_then_a_count(tmp_path):
    for folder in ("images/training", "annotations/training"):
        (tmp_path / folder).mkdir(parents=True)
    for index in range(25):
        (tmp_path / f"images/training/{index:02}.jpg").write_bytes(b"no picture")
        Image.new("L", (4, 4)).save(tmp_path / f"annotations/training/{index:02}.png")
    report = check_split(DataSection(root=str(tmp_path)), "training")
    assert len(report.problems) == 25
    text = report.text(dataset_info("ade20k"))
    assert "25 examples cannot be used" in text
    assert text.count("is not a readable picture") == SHOWN
    assert "and 5 more" in text


def test_two_palettes_are_a_problem(tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    for name, palette in (("x", distinct_colors(256)), ("y", distinct_colors(256)[::-1])):
        Image.new("RGB", (4, 4)).save(tmp_path / f"images/train/{name}.png")
        label = Image.new("L", (4, 4), 1)
        label.putpalette(palette.tobytes())
        label.save(tmp_path / f"labels/train/{name}.png")
    data = DataSection(dataset="custom", root=str(tmp_path), class_names="names.txt")
    (problem,) = check_split(data, "train").problems
    assert "x.png and" in problem
    assert "different palettes" in problem


def palette_labels(root, palettes, values=(0, 1)):
    """`check_split` of a split with one label file of these values for each palette."""
    (root / "names.txt").write_text("a\nb\n")
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    for index, palette in enumerate(palettes):
        Image.new("RGB", (2, 1)).save(root / f"images/train/{index}.png")
        label = Image.fromarray(np.array([values], np.uint8))
        label.putpalette(np.asarray(palette, np.uint8).tobytes())
        label.save(root / f"labels/train/{index}.png")
    return check_split(DataSection(dataset="custom", root=str(root), class_names="names.txt"), "train")


def test_labels_are_counted_by_index_whatever_the_colours(tmp_path):
    """Equal colours once made class 0 of all values that have them, the ignored one included."""
    assert palette_labels(tmp_path, [np.zeros((256, 3))], values=(1, 255)).pixels.tolist() == [0, 1]


def test_entries_that_occur_in_no_pixel_may_differ(tmp_path):
    report = palette_labels(tmp_path, [[(0, 0, 0), (9, 9, 9)], [(0, 0, 0), (9, 9, 9), (1, 2, 3)]])
    assert report.pixels.tolist() == [2, 2]
    assert not any("palettes" in str(problem) for problem in report.problems)


def test_palettes_fitted_to_each_picture_are_doubted(tmp_path):
    report = palette_labels(tmp_path, [[(0, 0, 0), (9, 9, 9)], [(9, 9, 9), (0, 0, 0)], [(9, 9, 9), (0, 0, 0)]])
    (problem,) = report.problems
    assert "0.png and " in problem
    assert "(and 1 more files): different palettes: index 0 is (0, 0, 0) in one and (9, 9, 9) in the other" in problem
