"""Batches are a function of seed, epoch and position, and hold what the files hold."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.data.catalog import dataset_info
from psanet_tf.data.normalization import MEAN, STD
from psanet_tf.data.pipeline import evaluation_dataset, steps_per_epoch, training_dataset
from psanet_tf.data.readers import list_examples, read_example
from psanet_tf.training.fitting import distribute_dataset
from psanet_tf.training.strategy import build_strategy

UNCHANGED = {"scale": (1.0, 1.0), "rotate_probability": 0.0, "blur_probability": 0.0, "flip_probability": 0.0}


# Without what makes the graph large; the draws are the same.
BRIEF = {"rotate_probability": 0.0, "blur_probability": 0.0}


@pytest.fixture(scope="module")
def dataset(scenes_config):
    return training_dataset(scenes_config(augmentation=BRIEF), 4)


@pytest.fixture(scope="module")
def run(dataset):
    """The first seven batches, two of which are an epoch."""
    return take(dataset, 7)


def take(dataset, count):
    return [(image.numpy(), labels["logits"].numpy()) for image, labels in dataset.take(count)]


def assert_equal_batches(first, second):
    assert len(first) == len(second)
    for (image_a, label_a), (image_b, label_b) in zip(first, second, strict=True):
        assert np.array_equal(image_a, image_b)
        assert np.array_equal(label_a, label_b)


def test_shapes_types_and_both_labels(dataset, run):
    image, label = run[0]
    assert image.shape == (4, 97, 97, 3)
    assert image.dtype == np.float32
    assert label.shape == (4, 97, 97)
    assert label.dtype == np.uint8
    image_spec, label_specs = dataset.element_spec
    assert image_spec == tf.TensorSpec(image.shape, tf.float32)
    assert label_specs == {name: tf.TensorSpec(label.shape, tf.uint8) for name in ("logits", "aux_logits")}


def test_the_number_of_threads_changes_nothing(scenes_config):
    one, four = (training_dataset(scenes_config(workers=workers), 4).take(5) for workers in (1, 4))
    for (image_a, labels_a), (image_b, labels_b) in zip(one, four, strict=True):
        assert np.array_equal(image_a, image_b)
        assert np.array_equal(labels_a["logits"], labels_b["logits"])
        assert np.array_equal(labels_a["logits"], labels_a["aux_logits"])


def test_another_seed_gives_other_batches(scenes_config, run):
    other = take(training_dataset(scenes_config(seed=1, augmentation=BRIEF), 4), 1)
    assert not np.array_equal(run[0][0], other[0][0])


def test_a_later_start_gives_the_batches_that_would_have_come(scenes_config, run):
    config = scenes_config(augmentation=BRIEF)
    assert steps_per_epoch(config, 4) == 2
    assert_equal_batches(run[4:], take(training_dataset(config, 4, start_step=4), 3))
    assert_equal_batches(run[3:], take(training_dataset(config, 4, start_epoch=1, start_step=1), 4))


def test_workers_share_each_batch(scenes_config, run):
    config = scenes_config(augmentation=BRIEF)
    shares = [take(training_dataset(config, 4, num_workers=2, worker_index=index), 3) for index in (0, 1)]
    for step, (image, label) in enumerate(run[:3]):
        assert np.array_equal(image, np.concatenate([share[step][0] for share in shares]))
        assert np.array_equal(label, np.concatenate([share[step][1] for share in shares]))


def test_epochs_see_the_images_in_other_orders_and_none_twice(scenes_config):
    config = scenes_config(augmentation=UNCHANGED, crop_size=(161, 161))
    info = dataset_info("scenes")
    known = [read_example(example, info)[1] for example in list_examples(config.data, "training")]
    batches = take(training_dataset(config, 5), 4)
    orders = []
    for epoch in (0, 1):
        labels = np.concatenate([label for _, label in batches[2 * epoch : 2 * epoch + 2]])
        orders.append([[np.array_equal(label, other) for other in known].index(True) for label in labels])
        assert len(set(orders[-1])) == 10
    assert orders[0] != orders[1]


def test_without_augmentation_images_are_normalized_files(scenes_config):
    config = scenes_config(augmentation=UNCHANGED, crop_size=(161, 161))
    known = {
        label.tobytes(): image
        for image, label in (
            read_example(example, dataset_info("scenes")) for example in list_examples(config.data, "training")
        )
    }
    for image, label in zip(*take(training_dataset(config, 5), 1)[0], strict=True):
        expected = (known[label.tobytes()] - MEAN.astype(float)) / STD
        assert abs(image - expected).max() < 1e-4


def test_evaluation_gives_every_image_once_and_fills_up_the_last_batch(scenes_config):
    config = scenes_config(crop_size=(161, 177))
    dataset = evaluation_dataset(config, 2)
    assert int(dataset.cardinality()) == 3
    batches = take(dataset, 9)
    images = np.concatenate([image for image, _ in batches])
    labels = np.concatenate([label for _, label in batches])
    examples = list_examples(config.data, "validation")
    assert len(images) == 6
    for example, image, label in zip(examples, images, labels, strict=False):
        expected_image, expected_label = read_example(example, dataset_info("scenes"))
        assert np.array_equal(label[:, 8:169], expected_label)
        assert (np.delete(label, np.s_[8:169], 1) == 255).all()
        assert abs(image[:, 8:169] - (expected_image - MEAN) / STD).max() < 1e-4
        assert (np.delete(image, np.s_[8:169], 1) == 0).all()
    assert (labels[5] == 255).all()
    assert (images[5] == 0).all()


def test_evaluation_cuts_the_middle_of_larger_images(scenes_config):
    config = scenes_config(crop_size=(97, 89))
    _, label = take(evaluation_dataset(config, 1), 1)[0]
    example = list_examples(config.data, "validation")[0]
    assert np.array_equal(label[0], read_example(example, dataset_info("scenes"))[1][32:129, 36:125])


def test_a_batch_larger_than_the_split_is_refused(scenes_config):
    with pytest.raises(ValueError, match="batch_size.*11 images.*batch of 12"):
        training_dataset(scenes_config(), 12)


def test_workers_must_share_equally(scenes_config):
    with pytest.raises(ValueError, match="4 cannot be shared equally by 3"):
        training_dataset(scenes_config(), 4, num_workers=3)
    with pytest.raises(ValueError, match=r"worker_index: must be 0\.\.1, got 2"):
        training_dataset(scenes_config(), 4, num_workers=2, worker_index=2)


def test_an_iterator_can_be_left_before_its_end(dataset, run):
    # A pipeline that calls Python would wait for itself here for ever.
    for _ in range(2):
        np.testing.assert_array_equal(next(iter(dataset))[0], run[0][0])


def test_no_thread_that_tunes_holds_up_the_end_of_an_iterator(dataset, scenes_config):
    """TensorFlow's sleeps for up to a minute, and may miss that it is woken to end."""
    config = scenes_config(augmentation=BRIEF)
    fitted = distribute_dataset(build_strategy(config.train), config.train, lambda **worker: dataset.repeat())
    for made in (dataset, dataset.take(3), evaluation_dataset(config, 4), fitted):
        assert made.options().autotune.enabled is False
