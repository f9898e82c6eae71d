"""Which scale is the right one, and what is said where images are seen at another."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from psanet_tf.config import Config, EvaluateSection
from psanet_tf.config.data import DataSection
from psanet_tf.data.catalog import DatasetInfo, dataset_info, info_of
from psanet_tf.data.readers import list_examples
from psanet_tf.data.record_writer import write_records
from psanet_tf.data.scale import (
    config_scale_warnings,
    median_long_side,
    scale_warning,
    with_base_size,
    with_long_side,
)


@pytest.fixture(scope="module")
def custom(tmp_path_factory):
    """Training images of long sides 30, 40 and 90, validation images of 160."""
    root = tmp_path_factory.mktemp("custom")
    sizes = {"train": [(30, 20), (25, 40), (90, 10)], "val": [(160, 120)]}
    for split, items in sizes.items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for index, size in enumerate(items):
            Image.new("RGB", size).save(root / f"images/{split}/{index}.jpg")
            Image.new("L", size).save(root / f"labels/{split}/{index}.png")
    (root / "names.txt").write_text("a\nb\n")
    return {"dataset": "custom", "root": str(root), "class_names": "names.txt"}


def test_the_median_is_that_of_the_long_sides(custom, tmp_path):
    data = DataSection(**custom)
    examples = list_examples(data, "train")
    assert median_long_side(examples) == 40
    assert median_long_side(examples[:2]) == 35
    assert median_long_side([example.image_path for example in examples]) == 40
    write_records(data, "train", tmp_path, examples_per_shard=2)
    (tmp_path / "names.txt").write_text("a\nb\n")
    records = DataSection(**custom | {"root": str(tmp_path), "format": "tfrecord"})
    assert median_long_side(list_examples(records, "train")) == 40
    (tmp_path / "broken.jpg").write_bytes(b"x")
    assert median_long_side([tmp_path / "broken.jpg", examples[0].image_path]) == 30
    assert median_long_side([tmp_path / "broken.jpg"]) is None


def test_five_hundred_of_many_images_are_measured(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("psanet_tf.data.scale._long_side", lambda path: opened.append(path) or 7)
    assert median_long_side(list(range(5000))) == 7
    assert opened == list(range(0, 5000, 10))


@pytest.mark.parametrize(("name", "size"), [("ade20k", 512), ("voc2012", 512), ("cityscapes", 2048)])
def test_published_datasets_keep_the_papers_scale(name, size):
    info = dataclasses.replace(dataset_info(name), long_side=1000)
    assert with_base_size(EvaluateSection(), info).base_size == size
    assert with_base_size(EvaluateSection(base_size=70), info).base_size == 70


def test_other_data_take_the_scale_of_their_training_images(custom, tmp_path):
    data = DataSection(**custom)
    info = info_of(data)
    with pytest.raises(ValueError, match=r"evaluate\.base_size: neither the weights nor the training images tell"):
        with_base_size(EvaluateSection(), info)
    measured = with_long_side(info, data)
    assert with_base_size(EvaluateSection(flip=False), measured) == EvaluateSection(flip=False, base_size=40)
    assert with_base_size(EvaluateSection(base_size=70), measured).base_size == 70
    # Kept with the weights: not measured again where other images are in the place of those of training.
    kept = DatasetInfo.from_dict(json.loads(json.dumps(measured.to_dict())))
    assert kept.long_side == 40
    assert with_long_side(kept, DataSection(**custom, train_split="val")).long_side == 40
    assert with_long_side(info, DataSection(**custom, train_split="gone")).long_side is None


@pytest.mark.parametrize(
    ("trained", "base_size", "seen", "advice"),
    [
        (1600, 512, None, "things look 3.1 times smaller than in training; set evaluate.base_size=1600"),
        (1600, 512, 1600, "things look 3.1 times smaller than in training; set evaluate.base_size=1600"),
        (200, 512, 1000, "things look 2.6 times larger than in training; set evaluate.base_size=200"),
        (400, 400, 1600, "right for the same views at another resolution; for things of equal size in pixels set 1600"),
        (400, 1600, 1600, "right for things of equal size in pixels; for the same views at another resolution set 400"),
        (400, None, 1600, "right for things of equal size in pixels; for the same views .* without --whole"),
        (683, 512, 700, None),
        (512, 512, 768, None),
        (None, 512, 2000, None),
        (400, None, None, None),
    ],
)
def test_warnings_name_all_numbers(trained, base_size, seen, advice):
    warning = scale_warning(trained, base_size, seen)
    if advice is None:
        assert warning is None
        return
    numbers, _, said = warning.partition(": ")
    assert re.fullmatch(advice, said)
    for number in (trained, base_size, seen):
        assert number is None or str(number) in numbers


def test_a_configuration_is_warned_of_before_training(custom):
    def warnings(**evaluate):
        config = Config.model_validate({"data": custom, "evaluate": evaluate})
        return config_scale_warnings(config, info_of(config.data))

    (text,) = warnings()
    assert text.startswith(
        "the training images have a long side of 40 pixels, those of split 'val' one of 160 and are resized to 40"
    )
    (text,) = warnings(base_size=512)
    assert "things look 12.8 times larger than in training; set evaluate.base_size=40" in text
    assert warnings(protocol="mmseg", scale=(2048, 512)) == []  # whose scale is no long side
    assert scale_warning(400, None, 1600, protocol="mmseg") is None
    for split in ("train", "val"):
        data = custom | {"train_split": split, "val_split": split}
        config = Config.model_validate({"data": data})
        assert config_scale_warnings(config, info_of(config.data)) == []


def test_numbers_of_pixels_do_not_depend_on_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 50, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    assert median_long_side([tmp_path / "turned.jpg"]) == 50
