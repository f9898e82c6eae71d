"""The records of `psanet data to-tfrecord` through the Garden's reader, and through our augmentation as its parser."""

import numpy as np
import pytest
import tensorflow as tf

garden = pytest.importorskip("psanet_tf.garden", exc_type=ImportError)

from official.core import input_reader  # noqa: E402
from official.vision.dataloaders import segmentation_input  # noqa: E402

from psanet_tf.data.normalization import MEAN, STD  # noqa: E402
from psanet_tf.garden.parser import full_batches  # noqa: E402
from psanet_tf.garden.task import PSANetTask  # noqa: E402

SIZE = [40, 56]


def data(folder, split, **settings):
    settings = {"global_batch_size": 1, "output_size": SIZE, "cycle_length": 1} | settings
    return garden.PSANetData(input_path=f"{folder}/{split}-*.tfrecord", is_training=split == "training", **settings)


def task(**settings):
    config = garden.experiments.scenes().task
    config.model.override({"input_size": [*SIZE, 3]})
    config.override(settings)
    return PSANetTask(config)


def test_the_gardens_unchanged_reader_gives_the_pictures_and_labels(records):
    folder, arrays = records
    params = data(folder, "validation")
    parser = segmentation_input.Parser(output_size=SIZE)
    reader = input_reader.InputReader(
        params, decoder_fn=segmentation_input.Decoder().decode, parser_fn=parser.parse_fn(is_training=False)
    )
    batches = list(reader.read())
    assert len(batches) == len(arrays["validation"])
    for (image, labels), (expected, values) in zip(batches, arrays["validation"], strict=True):
        np.testing.assert_allclose(image[0], (expected - MEAN) / STD, atol=2e-5)
        np.testing.assert_array_equal(labels["masks"][0, ..., 0], values)
        np.testing.assert_array_equal(labels["valid_masks"][0, ..., 0], values != 255)


@pytest.mark.parametrize("parser", ["psanet", "garden"])
def test_both_parsers_validate_on_the_images_as_they_are(records, parser):
    folder, arrays = records
    params = data(folder, "validation", parser=parser, drop_remainder=False)
    batches = list(task().build_inputs(params))
    assert len(batches) == len(arrays["validation"])
    for (image, labels), (expected, values) in zip(batches, arrays["validation"], strict=True):
        np.testing.assert_allclose(image[0], (expected - MEAN) / STD, atol=2e-5)
        np.testing.assert_array_equal(labels["masks"][0, ..., 0], values)
        np.testing.assert_array_equal(labels["image_info"][0], [SIZE, SIZE, [1, 1], [0, 0]])


def test_training_images_are_augmented_and_their_labels_with_them(records):
    """Where an image is neither scaled nor turned nor blurred, each pixel is one of the files', and so is its label."""
    folder, arrays = records
    settings = {"rotate_probability": 0.0, "blur_probability": 0.0, "aug_scale_min": 1.0, "aug_scale_max": 1.0}
    params = data(folder, "training", output_size=[24, 24], seed=3, **settings)
    config = garden.experiments.scenes().task
    config.model.override({"input_size": [24, 24, 3]})
    offsets, mirrored = set(), 0
    for image, labels in PSANetTask(config).build_inputs(params).take(12):
        pixels = np.rint(image[0].numpy() * STD + MEAN).astype(int)
        row, column = labels["image_info"][0, 3].numpy().astype(int)
        found = [
            flip
            for expected, values in arrays["training"]
            for flip in (1, -1)
            if np.array_equal(pixels, expected[:, ::flip][row : row + 24, column : column + 24])
            and np.array_equal(labels["masks"][0, ..., 0], values[:, ::flip][row : row + 24, column : column + 24])
        ]
        assert len(found) == 1
        mirrored += found[0] == -1
        offsets.add((row, column))
    assert len(offsets) > 6
    assert 0 < mirrored < 12


def test_rotation_leaves_corners_without_labels(records):
    folder, _ = records
    settings = {"rotate_probability": 1.0, "rotate_degrees": 180.0, "aug_scale_min": 1.0, "aug_scale_max": 1.0}
    for image, labels in task().build_inputs(data(folder, "training", seed=1, **settings)).take(3):
        corners = labels["valid_masks"].numpy()[0, [0, 0, -1, -1], [0, -1, 0, -1], 0]
        assert not corners.all()
        assert np.isfinite(image).all()


def test_the_last_batch_is_filled_up_for_every_replica():
    images = tf.data.Dataset.range(5).map(
        lambda number: (
            tf.fill([4, 4, 3], tf.cast(number + 1, tf.float32)),
            {
                "masks": tf.zeros([4, 4, 1]),
                "valid_masks": tf.ones([4, 4, 1], tf.bool),
                "image_info": tf.zeros([4, 2]),
            },
        )
    )
    context = tf.distribute.InputContext(num_input_pipelines=1, num_replicas_in_sync=2)
    batches = list(full_batches(4)(images, context))
    assert [batch[0].shape for batch in batches] == [(2, 4, 4, 3)] * 4
    assert [float(image[0, 0, 0]) for batch, _ in batches for image in batch] == [1, 2, 3, 4, 5, 0, 0, 0]
    valid = [bool(mask[0, 0, 0]) for _, labels in batches for mask in labels["valid_masks"]]
    assert valid == [True] * 5 + [False] * 3
    assert np.all(batches[3][1]["masks"] == 255)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parser": "other"}, "task.train_data.parser must be one of psanet, garden, got 'other'"),
        ({"output_size": [40, 48]}, r"task.train_data.output_size \[40, 48\] must be that of task.model.input_size"),
        ({"resize_eval_groundtruth": False}, "resize_eval_groundtruth must be true"),
        ({"input_path": "", "tfds_name": "some", "tfds_split": "train"}, "tfds_name needs task.train_data.parser"),
        ({"aug_scale_min": 3.0}, "needs 0 < smallest <= largest"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(records, settings, message):
    with pytest.raises(ValueError, match=message):
        task().build_inputs(data(records[0], "training").replace(**settings))
    with pytest.raises(ValueError, match="task.losses.ignore_label must be 255"):
        task(losses={"ignore_label": 0}).build_inputs(data(records[0], "training"))


def test_a_label_that_is_no_class_is_an_error(records):
    folder, _ = records
    config = garden.experiments.scenes().task
    config.override({"model": {"num_classes": 3, "input_size": [*SIZE, 3]}, "dataset": ""})
    with pytest.raises(tf.errors.InvalidArgumentError, match="label value out of range"):
        list(PSANetTask(config).build_inputs(data(folder, "validation")))
