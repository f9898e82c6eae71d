"""What is written for CVAT and Label Studio is read back into the same label map."""

import io
import re
import xml.etree.ElementTree as ElementTree
import zipfile

import numpy as np
import pytest
from PIL import Image

from psanet_tf.data.catalog import DatasetInfo, dataset_info
from psanet_tf.inference.prelabels import (
    brush,
    cvat_colors,
    cvat_labels,
    label_studio_interface,
    label_studio_task,
    write_cvat_masks,
)


def _unpacked(data):
    """A brush, bit by bit, as @thi.ng/rle-pack reads it."""
    bits = "".join(f"{value:08b}" for value in data)
    place = 0

    def read(count):
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    count, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        is_run = read(1)
        length = read(lengths[read(2)]) + 1
        values += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    assert len(bits) - place < 8
    return np.array(values)


def _read_cvat(path, info):
    """{name: class indices}, by the colours of the list of labels."""
    with zipfile.ZipFile(path) as archive:
        lines = [line for line in archive.read("labelmap.txt").decode().splitlines() if not line.startswith("#")]
        colors = {}
        for line in lines:
            name, color, parts, actions = line.split(":")
            assert (parts, actions) == ("", "")
            colors[tuple(map(int, color.split(",")))] = name
        assert len(colors) == len(lines)
        assert colors[0, 0, 0].lower() == "background"
        names = archive.read("ImageSets/Segmentation/default.txt").decode().splitlines()
        assert sorted(archive.namelist()) == sorted(
            ["labelmap.txt", "ImageSets/Segmentation/default.txt", *(f"SegmentationClass/{name}.png" for name in names)]
        )
        found = {}
        for name in names:
            image = Image.open(io.BytesIO(archive.read(f"SegmentationClass/{name}.png")))
            assert image.mode == "RGB"
            classes = [
                [info.class_names.index(colors[tuple(pixel)]) for pixel in row] for row in np.asarray(image).tolist()
            ]
            found[name] = np.array(classes)
        return found


ALIKE = DatasetInfo("alike", ("sky", "sea <deep>", 'a "b" & c'), np.array([[0, 0, 0], [5, 5, 5], [5, 5, 5]]))


@pytest.mark.parametrize("info", [dataset_info("voc2012"), dataset_info("ade20k"), dataset_info("cityscapes"), ALIKE])
def test_cvat_gives_the_label_maps_back(info, tmp_path):
    generator = np.random.default_rng(0)
    label_maps = {name: generator.integers(0, info.num_classes, (7, 9)).astype("uint8") for name in ("1_a", "2_b.c")}
    write_cvat_masks(tmp_path / "masks.zip", label_maps.items(), info)
    found = _read_cvat(tmp_path / "masks.zip", info)
    assert list(found) == list(label_maps)
    for name, labels in label_maps.items():
        np.testing.assert_array_equal(found[name], labels)
    labels = {label["name"]: label["color"] for label in cvat_labels(info)}
    assert list(labels) == [name for name in info.class_names if name.lower() != "background"]
    for name, color in zip(info.class_names, cvat_colors(info), strict=True):
        assert labels.get(name, "#000000") == "#" + "".join(f"{value:02x}" for value in color)
    named_so = [name.lower() == "background" for name in info.class_names]
    np.testing.assert_array_equal(~cvat_colors(info).any(1), named_so)


def test_names_that_a_list_of_labels_cannot_hold_are_refused(tmp_path):
    for name in ("a:b", "#a"):
        with pytest.raises(ValueError, match=f"the class name '{name}' cannot be written into CVAT's labelmap.txt"):
            write_cvat_masks(tmp_path / "masks.zip", [], DatasetInfo("two", ("x", name), np.eye(2, 3)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("info", [dataset_info("scenes"), ALIKE])
def test_label_studio_gives_the_label_map_back(info):
    labels = np.kron(np.random.default_rng(0).integers(0, info.num_classes, (4, 5)), np.ones((6, 9))).astype("uint8")
    labels[3, 4:7] = [0, 1, 0]
    task = label_studio_task("/data/a.png", labels, info, 0.75, "net")
    assert task["data"] == {"image": "/data/a.png"}
    (prediction,) = task["predictions"]
    assert (prediction["score"], prediction["model_version"]) == (0.75, "net")
    interface = ElementTree.fromstring(label_studio_interface(info))
    image, brushes = interface.find("Image"), interface.find("BrushLabels")
    assert image.get("value") == "$image"
    names = [label.get("value") for label in brushes]
    assert names == list(info.class_names)
    assert all(re.fullmatch("#[0-9a-f]{6}", label.get("background")) for label in brushes)
    found = np.full(labels.shape, 255)
    for region in prediction["result"]:
        assert (region["from_name"], region["to_name"]) == (brushes.get("name"), image.get("name"))
        assert (region["type"], region["value"]["format"], region["image_rotation"]) == ("brushlabels", "rle", 0)
        size = region["original_height"], region["original_width"]
        pixels = _unpacked(region["value"]["rle"]).reshape(*size, 4)
        assert set(np.unique(pixels)) <= {0, 255}
        assert (pixels == pixels[..., :1]).all()
        inside = pixels[..., 3] > 0
        assert (found[inside] == 255).all()
        (name,) = region["value"]["brushlabels"]
        found[inside] = names.index(name)
    np.testing.assert_array_equal(found, labels)
    assert len({region["id"] for region in prediction["result"]}) == len(prediction["result"])


@pytest.mark.parametrize("runs", [[1], [1, 1, 2, 1], [2, 4, 64, 65, 5], [20_000, 1, 16_384, 3], [16_385]])
def test_runs_of_every_length_are_packed(runs):
    """A run of a mask is four times as long in its picture: 8, 16, 256 and 65 536 are where kinds of lengths end."""
    for first in (0, 1):
        values = np.repeat((np.arange(len(runs)) + first) % 2, runs)
        np.testing.assert_array_equal(_unpacked(brush(values[None])), np.repeat(255 * values, 4))
