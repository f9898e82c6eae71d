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
