"""What a dataset's images are: checked in the configuration, carried to networks, and shown."""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from stored_images import data_section, npy, png, tiff, write_dataset

from psanet_tf.config import Config
from psanet_tf.config.data import AugmentationSection, DataSection
from psanet_tf.data.augmentation import apply_augmentation
from psanet_tf.data.catalog import DatasetInfo, dataset_info, info_of
from psanet_tf.data.checking import check_splits
from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat, image_format
from psanet_tf.data.normalization import MEAN, STD, normalize
from psanet_tf.data.pipeline import evaluation_dataset, training_dataset
from psanet_tf.data.readers import list_examples
from psanet_tf.data.record_writer import write_records
from psanet_tf.data.scale import median_long_side
from psanet_tf.data.statistics import Moments, combined, training_statistics, with_statistics
from psanet_tf.data.unreadable import readable_pipeline_errors


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PSANET_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "image_cache"))


@pytest.fixture(scope="module")
def bands(tmp_path_factory):
    """(root, images and labels by split) of a dataset of 12 bands of 16 bits in TIFF files."""
    root = tmp_path_factory.mktemp("bands")
    return root, write_dataset(root, 12, "uint16", ".tif", lambda values: tiff(values, compression="lzw"))


def config_of(root, **data):
    return Config.model_validate({"data": data_section(root, **({"channels": 12, "dtype": "uint16"} | data))})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"channels": 0}, "channels"),
        ({"dtype": "int16"}, "dtype"),
        ({"mean": (1.0, 2.0), "std": (1.0, 1.0)}, r"mean: needs one value for each of the 12 channels .*, got 2"),
        ({"mean": (1.0,) * 12, "std": (1.0,) * 3}, r"std: needs one value for each of the 12 channels .*, got 3"),
        ({"mean": (1.0,) * 12}, "std: is missing beside mean, the two belong together"),
        ({"std": (1.0,) * 12}, "mean: is missing beside std"),
        ({"mean": (1.0,) * 12, "std": (*(1.0,) * 11, 0.0)}, "std: must be positive, got 0 for channel 12"),
        ({"mean": (float("nan"),) * 12, "std": (1.0,) * 12}, "mean: must be finite numbers"),
        ({"display": {"bands": (13, 1, 2)}}, r"display.bands: must be 1 to 12, the channels counted from 1 .*, got 13"),
        ({"display": {"bands": (0,)}}, r"display.bands: must be 1 to 12, .*, got 0"),
        ({"display": {"bands": (1, 2)}}, r"display.bands: must be one \(grey\) or three .*, got 2"),
        ({"display": {"range": (5.0, 5.0)}}, r"display.range: needs two numbers, black < white, got \[5.0, 5.0\]"),
    ],
)
def test_impossible_formats_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        DataSection(root="x", **({"channels": 12, "dtype": "uint16"} | keys))
    if "display" not in keys:
        with pytest.raises(ValueError, match=message):
            ImageFormat(**({"channels": 12, "dtype": "uint16"} | keys))


def test_the_default_are_photographs_with_imagenets_statistics():
    data = DataSection(root="x")
    assert image_format(data) == PHOTOGRAPHS == ImageFormat()
    assert np.array_equal(PHOTOGRAPHS.fill, MEAN)
    assert np.array_equal(PHOTOGRAPHS.scale, STD)
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    assert np.array_equal(PHOTOGRAPHS.normalize(image), normalize(image))
    assert np.array_equal(PHOTOGRAPHS.normalize(tf.constant(image)), normalize(tf.constant(image)))
    assert PHOTOGRAPHS.picture(image) is image
    assert "images" not in dataset_info("scenes").to_dict()
    own = ImageFormat(mean=[1, 2, 3], std=[4, 5, 6])
    assert own.is_photograph
    assert np.array_equal(own.normalize(image), (image - np.float32([1, 2, 3])) / np.float32([4, 5, 6]))


def test_formats_and_what_is_known_of_a_dataset_survive_json():
    images = ImageFormat(2, "float32", mean=[0.5, 1], std=[2, 3], bands=(2,), display_range=(0, 1))
    assert ImageFormat.from_dict(images.to_dict()) == images
    info = dataclasses.replace(dataset_info("scenes"), images=images)
    assert DatasetInfo.from_dict(info.to_dict()).images == images


def test_without_statistics_nothing_is_normalized():
    with pytest.raises(
        ValueError, match=r"how images of 2 channels of uint16 are normalized: set data.mean and data.std"
    ):
        ImageFormat(2, "uint16").normalize(np.zeros((2, 2, 2), np.uint16))


@pytest.mark.parametrize("wrong", [np.zeros((4, 5, 2), np.uint8), np.zeros((4, 5, 1), np.uint16), np.zeros((4, 5))])
def test_arrays_must_be_of_the_format(wrong):
    with pytest.raises(ValueError, match=r"image must be uint16 \[H, W, 2\], got"):
        ImageFormat(2, "uint16").checked(wrong)


def test_arrays_must_be_finite():
    with pytest.raises(ValueError, match="image must hold finite values, 1 of 4 are not"):
        ImageFormat(1, "float32").checked(np.float32([[[1], [np.inf]], [[1], [1]]]))


def test_pictures_show_the_bands_and_the_range_that_were_asked_for():
    ramp = np.arange(1000, dtype=np.uint16).reshape(20, 50)
    image = np.stack([ramp * 0, ramp, 2 * ramp, ramp[::-1]], axis=-1)
    fixed = ImageFormat(4, "uint16", bands=(2, 3, 4), display_range=(100, 900)).picture(image)
    assert fixed.dtype == np.uint8
    expected = np.round(np.clip((image[..., 1:].astype(float) - 100) / 800, 0, 1) * 255)
    assert np.array_equal(fixed, expected)
    stretched = ImageFormat(4, "uint16", bands=(3,)).picture(image)
    assert (stretched[..., :1] == stretched).all()
    low, high = np.percentile(2 * ramp, (2, 98))
    assert np.array_equal(stretched[..., 0], np.round(np.clip((2 * ramp - low) / (high - low), 0, 1) * 255))
    assert (ImageFormat(4, "uint16", bands=(1,)).picture(image) == 128).all()
    grey = (ramp // 4).astype(np.uint8)[..., None]
    assert np.array_equal(ImageFormat(1).picture(grey), np.repeat(grey, 3, -1))
    rgb = np.repeat(grey, 3, -1) // [1, 2, 3]
    assert np.array_equal(ImageFormat(bands=(3, 2, 1)).picture(rgb.astype(np.uint8)), rgb[..., ::-1])


def test_stored_values_come_back_of_normalized_ones():
    rng = np.random.default_rng(0)
    for dtype, largest in (("uint8", 255), ("uint16", 65535), ("float32", 7)):
        images = ImageFormat(2, dtype, mean=[largest / 3, largest / 2], std=[largest / 5, largest / 4])
        values = (rng.uniform(0, 1, (6, 7, 2)) * largest).astype(dtype)
        back = images.denormalized(images.normalize(values))
        assert back.dtype == dtype
        np.testing.assert_allclose(back, values, atol=0 if dtype != "float32" else 1e-5)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_augmentation_does_to_each_channel_what_it_does_to_one_of_a_photograph(dtype):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (37, 29, 5)).astype(np.uint8)
    label = rng.integers(0, 3, (37, 29)).astype(np.uint8)
    fill = np.float32([10, 20, 30, 40, 50])
    arguments = {"scale": 1.3, "blur": True, "flip": True, "offset_yx": (3, 0), "crop_size": (33, 41)}
    for angle in (0.0, 7.0):
        more = arguments | {"angle_degrees": angle, "ignore_label": 255}
        many, values = apply_augmentation(image.astype(dtype), label, fill=fill, **more)
        assert many.shape == (33, 41, 5)
        for first in (0, 2):
            three, same = apply_augmentation(image[..., first : first + 3], label, fill=fill[first : first + 3], **more)
            assert np.array_equal(values, same)
            np.testing.assert_allclose(many[..., first : first + 3], three, atol=1e-4)


def test_statistics_are_those_of_all_pixels(bands):
    root, written = bands
    pixels = np.concatenate([image.reshape(-1, 12) for image, _ in written["train"].values()]).astype(np.float64)
    mean, std = training_statistics(config_of(root).data)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-5)
    (report, _) = check_splits(config_of(root).data, ["train", "val"], statistics=True)
    assert report.statistics == (mean, std)
    assert report.problems == []
    assert report.notes == []


def test_statistics_lose_no_digits_far_from_zero():
    rng = np.random.default_rng(0)
    images = [rng.normal(1e6, 1, (30, 40, 1)).astype(np.float32) for _ in range(3)]
    mean, std = combined(map(Moments.of, images)).statistics("these")
    values = np.concatenate([image.ravel() for image in images]).astype(np.float64)
    assert std[0] == pytest.approx(values.std(), rel=1e-5)
    assert mean[0] == pytest.approx(values.mean(), rel=1e-5)


def test_a_configuration_gets_the_statistics_that_it_leaves_open(bands):
    root, _ = bands
    config = config_of(root)
    resolved, line = with_statistics(config)
    assert (resolved.data.mean, resolved.data.std) == training_statistics(config.data)
    assert f"data.mean={list(resolved.data.mean)}" in line
    assert with_statistics(resolved) == (resolved, None)
    known = resolved.data.model_copy(update={"mean": (1.0,) * 12, "std": (2.0,) * 12})
    assert with_statistics(config, known)[0].data == known
    other = known.model_copy(update={"dtype": "float32"})
    assert with_statistics(config, other)[0] == resolved
    photographs = Config.model_validate({"data": {"root": "nowhere"}})
    assert with_statistics(photographs) == (photographs, None)


def test_a_channel_of_one_value_and_unreadable_images_are_named(tmp_path):
    root = tmp_path / "flat"
    write_dataset(root, 2, "uint16", ".npy", lambda values: npy(values * np.uint16([1, 0])))
    data = config_of(root, channels=2).data
    with pytest.raises(ValueError, match=r"channel 2 of the images of split 'train' has the value 0 everywhere"):
        training_statistics(data)
    report = check_splits(data, ["train"], statistics=True)[0]
    assert ["channel 2 of the images" in problem.what for problem in report.problems] == [True]
    for path in (root / "images/train").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"field_0.npy is no PNG, TIFF, .npy or JPEG file"):
        training_statistics(data)
    with pytest.raises(ValueError, match="not one of the images of split 'train' can be read"):
        training_statistics(data.model_copy(update={"on_error": "skip"}))


def test_checking_names_images_of_other_channels_and_dtypes(tmp_path):
    root = tmp_path / "mixed"
    write_dataset(root, 1, "uint16", ".png", png)
    small = np.ones((40, 48, 1), np.uint8)
    (root / "images/train/field_1.png").write_bytes(png(small))
    (root / "images/train/field_2.png").write_bytes(png(np.repeat(small, 3, -1).astype(np.uint16)))
    (report,) = check_splits(config_of(root, channels=1).data, ["train"])
    found = {problem.what: problem for problem in report.problems}
    assert len(found) == 2
    texts = "\n".join(line for problem in report.problems for line in problem.lines())
    assert "holds values of uint8, wanted is uint16: all images of a dataset need one dtype" in texts
    assert "holds 3 channels of uint16, wanted are 1 channel of uint16: set data.channels=3" in texts


def test_checking_says_where_photographs_lose_bits(tmp_path):
    root = tmp_path / "deep"
    write_dataset(root, 1, "uint16", ".png", png)
    (report,) = check_splits(config_of(root, channels=3, dtype="uint8").data, ["val"])
    (note,) = report.notes
    assert note.what == "of 2 images with 16 bits the upper 8 are read"
    assert "set data.dtype=uint16, and data.channels=1 for grey" in note.advice
    assert report.problems == []


@pytest.fixture(scope="module")
def resolved(bands):
    return with_statistics(config_of(bands[0]))[0]


def pipeline_images(config):
    images = info_of(config.data).images
    batches = [batch for batch, _ in evaluation_dataset(config, 2)]
    return np.concatenate([images.denormalized(batch.numpy()) for batch in batches])


@pytest.mark.parametrize("data_format", ["files", "tfrecord"])
def test_the_pipeline_loses_no_bit(bands, resolved, tmp_path, data_format):
    _, written = bands
    config = resolved
    if data_format == "tfrecord":
        write_records(config.data, "val", tmp_path, workers=1)
        (tmp_path / "names.txt").write_bytes((bands[0] / "names.txt").read_bytes())
        data = config.data.model_copy(update={"format": "tfrecord", "root": str(tmp_path)})
        config = config.model_copy(update={"data": data})
    assert median_long_side(list_examples(config.data, "val")) == 48
    for seen, (image, _) in zip(pipeline_images(config), written["val"].values(), strict=True):
        assert np.array_equal(seen, image[3:36, 7:40])


def test_training_batches_have_the_channels_and_name_what_cannot_be_read(resolved):
    plain = {"rotate_probability": 0.0, "blur_probability": 0.0}
    data = resolved.data.model_copy(update={"augmentation": AugmentationSection(**plain)})
    batch, labels = next(iter(training_dataset(Config(data=data), 3)))
    assert batch.shape == (3, 33, 33, 12)
    assert abs(float(tf.reduce_mean(batch))) < 1
    assert labels["logits"].shape == (3, 33, 33)
    wrong = data.model_copy(update={"channels": 2, "mean": (1.0, 1.0), "std": (1.0, 1.0)})
    with pytest.raises(ValueError, match=r"field_\d.tif holds 12 channels of uint16.*set data.channels=12"):
        with readable_pipeline_errors(wrong):
            next(iter(evaluation_dataset(Config(data=wrong), 2)))


def test_without_statistics_there_is_no_pipeline(bands):
    with pytest.raises(ValueError, match=re.escape("set data.mean and data.std (psanet data check --statistics")):
        training_dataset(config_of(bands[0]), 2)
