"""Examples that cannot be read: fatal and named, or passed over and counted."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from psanet_tf.data.layouts import Example
from psanet_tf.data.pipeline import evaluation_dataset, training_dataset
from psanet_tf.data.unreadable import UnreadableExamples, readable_pipeline_errors
from psanet_tf.data.unreadable_findings import unreadable_findings

CUT_SHORT, OUT_OF_RANGE, OTHER_SIZE = 2, 5, 7


@pytest.fixture
def damaged(scenes_root, tmp_path):
    """The small dataset with one image cut short, one label value out of range, one label of another size."""
    root = tmp_path / "data"
    shutil.copytree(scenes_root, root)
    image = root / f"images/training/scene_training_{CUT_SHORT:06}.jpg"
    image.write_bytes(image.read_bytes()[:1000])
    labels = root / "annotations/training"
    Image.new("L", (161, 161), 42).save(labels / f"scene_training_{OUT_OF_RANGE:06}.png")
    Image.new("L", (161, 160), 1).save(labels / f"scene_training_{OTHER_SIZE:06}.png")
    return str(root)


# The graph of augmentation is large, and not the point here.
UNCHANGED = {"scale": (1.0, 1.0), "rotate_probability": 0.0, "blur_probability": 0.0, "flip_probability": 0.0}


def only(root, tmp_path, *indices):
    """A dataset of some of the training images."""
    for folder, suffix in (("images", ".jpg"), ("annotations", ".png")):
        (tmp_path / "some" / folder / "training").mkdir(parents=True)
        for index in indices:
            path = f"{root}/{folder}/training/scene_training_{index:06}{suffix}"
            shutil.copy(path, tmp_path / "some" / folder / "training")
    return str(tmp_path / "some")


def test_by_default_it_is_an_error_that_names_the_file_and_says_why(damaged, scenes_config, tmp_path):
    root = only(damaged, tmp_path, CUT_SHORT, OUT_OF_RANGE, OTHER_SIZE)
    config = scenes_config(root=root, val_split="training")
    batches = iter(evaluation_dataset(config, 1))
    for message in (
        r"scene_training_000002\.jpg is not a readable image",
        r"scene_training_000005\.png: label values out of range: 42",
        r"scene_training_000007\.png: labels must be of their image's size",
    ):
        with pytest.raises(ValueError, match=message), readable_pipeline_errors(config.data):
            next(batches)


def test_training_stops_at_it_and_errors_of_tensorflow_name_the_file_too(damaged, scenes_config, tmp_path):
    config = scenes_config(root=only(damaged, tmp_path, CUT_SHORT), augmentation=UNCHANGED)
    dataset = training_dataset(config, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"scene_training_000002\.jpg"):
        next(iter(dataset))
    with pytest.raises(ValueError, match=r"scene_training_000002\.jpg is not"), readable_pipeline_errors(config.data):
        next(iter(dataset))


def test_errors_of_one_kind_are_one_finding(tmp_path):
    examples = [Example(str(index), tmp_path / f"{index}.jpg", tmp_path / f"{index}.png") for index in range(3)]
    colors = ("#ff0000 (12)", "#00ff00 (3), #0000ff (1)", "#123456 (7), #abcdef (2) and 4 more")
    messages = [
        f"{each.label_path} holds colours of no class: {text}" for each, text in zip(examples, colors, strict=True)
    ]
    (finding,) = unreadable_findings(list(zip(examples, messages, strict=True)), 10)
    assert finding.what.startswith("3 examples cannot be used")


def test_other_errors_pass_unchanged(scenes_config):
    with pytest.raises(tf.errors.InvalidArgumentError), readable_pipeline_errors(scenes_config().data):
        raise tf.errors.InvalidArgumentError(None, None, "something else")


def test_skipped_examples_are_counted_named_and_replaced(damaged, scenes_config):
    config = scenes_config(root=damaged, on_error="skip", augmentation=UNCHANGED)
    unreadable = UnreadableExamples()
    batches = list(training_dataset(config, 11, unreadable=unreadable).take(1))
    summary = unreadable.take_summary(config.data, "training")
    assert summary.startswith("skipped 3 of 11 examples of split 'training' that cannot be read:")
    assert "scene_training_000002.jpg is not a readable image" in summary
    assert "label values out of range: 42" in summary
    assert unreadable.take_summary(config.data, "training") is None
    images, labels = batches[0]
    assert images.shape[0] == 11
    assert all((label != 255).any() for label in labels["logits"].numpy())
    # What takes the place of a skipped image is a function of the seed, too.
    again = next(
        iter(training_dataset(scenes_config(root=damaged, on_error="skip", workers=1, augmentation=UNCHANGED), 11))
    )
    assert np.array_equal(images, again[0])


def test_evaluation_leaves_skipped_examples_out_of_the_score(damaged, scenes_config):
    config = scenes_config(root=damaged, on_error="skip", val_split="training")
    unreadable = UnreadableExamples()
    labels = np.concatenate(
        [item["logits"].numpy() for _, item in evaluation_dataset(config, 11, unreadable=unreadable)]
    )
    blank = [index for index, label in enumerate(labels) if (label == 255).all()]
    assert blank == [CUT_SHORT, OUT_OF_RANGE, OTHER_SIZE]
    assert "skipped 3 of 11" in unreadable.take_summary(config.data, "training")


def test_nothing_readable_at_all_is_an_error(damaged, scenes_config, tmp_path):
    config = scenes_config(root=only(damaged, tmp_path, CUT_SHORT), on_error="skip", augmentation=UNCHANGED)
    with pytest.raises(tf.errors.InvalidArgumentError, match="random images in turn could not be read"):
        next(iter(training_dataset(config, 1)))


def test_what_only_tensorflow_finds_wrong_is_said(scenes_root, scenes_config, tmp_path):
    config = scenes_config(root=only(scenes_root, tmp_path, 0), val_split="training")
    path = tmp_path / "some/annotations/training/scene_training_000000.png"
    contents = bytearray(path.read_bytes())
    contents[contents.index(b"IDAT") - 5] ^= 1  # in the checksum of the chunk before
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"scene_training_000000\.png"):
        with readable_pipeline_errors(config.data):
            next(iter(evaluation_dataset(config, 1)))


def test_examples_that_could_be_read_in_the_meantime_are_said_to(scenes_root, scenes_config):
    config = scenes_config(root=str(scenes_root))
    with pytest.raises(ValueError, match=r"scene_training_000003\.jpg or .*: could not be read then, but can be now"):
        with readable_pipeline_errors(config.data):
            raise tf.errors.InvalidArgumentError(None, None, "cannot read example 3 of split [training]")


def test_images_of_three_pixels_are_no_trouble(scenes_config, tmp_path):
    for folder in ("images", "annotations"):
        (tmp_path / folder / "training").mkdir(parents=True)
    Image.new("RGB", (3, 3), "white").save(tmp_path / "images/training/a.jpg")
    Image.new("L", (3, 3), 1).save(tmp_path / "annotations/training/a.png")
    config = scenes_config(root=str(tmp_path), augmentation={"blur_probability": 1.0})
    for _, labels in training_dataset(config, 1).take(4):
        assert set(np.unique(labels["logits"])) == {0, 255}
