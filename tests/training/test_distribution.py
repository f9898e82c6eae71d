"""`model.fit` on two replicas gives the weights of one device with the same global batch."""

import types

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSANet
from psanet_tf.config import TrainSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.keras_api import keras
from psanet_tf.layers import BatchNormalization
from psanet_tf.metrics import MeanIoU
from psanet_tf.models import build_model
from psanet_tf.training.prebuilding import build_for_fit
from psanet_tf.training.recipe import build_losses, build_optimizer

CLASSES = 4
INFO = DatasetInfo("test", ("a", "b", "c", "d"), np.zeros((CLASSES, 3), np.uint8))


def three_batches():
    """Global batches of 4; nearly all that replica 0 sees is ignored."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(12, 17, 17, 3))
    labels = rng.integers(0, CLASSES, (12, 17, 17)).astype(np.uint8)
    labels[0::4] = 255
    labels[1::4, 3:] = 255
    return tf.data.Dataset.from_tensor_slices((images, {"logits": labels, "aux_logits": labels})).batch(4)


def fit(strategy, rematerialize=False):
    """Three steps in float64, where rounding can't hide a wrong factor nor grow into one."""
    section = TrainSection(learning_rate=0.01)
    keras.utils.set_random_seed(5)
    with strategy.scope():
        model = PSANet(
            CLASSES,
            input_shape=(17, 17, 3),
            blocks=(1, 1, 1, 1),
            width=4,
            dropout=0.0,
            synchronized_batch_norm=True,
        )
        model.rematerialize = rematerialize
        model.compile(
            build_optimizer(section, updates=3),
            **build_losses(section, INFO),
            metrics={"logits": [MeanIoU(CLASSES)]},
            auto_scale_loss=False,
        )
        # As `build_job` does; otherwise `fit` traces the step twice, the first time to make what is missing.
        model.optimizer.build(model.trainable_variables)
        build_for_fit(model)
    history = model.fit(three_batches(), verbose=0).history
    return model, history


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")
    keras.mixed_precision.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.mixed_precision.set_dtype_policy("float32")


def test_a_keras_that_has_other_methods_is_left_to_itself():
    model = types.SimpleNamespace(output=None, _compile_loss=None)
    build_for_fit(model)
    assert vars(model) == {"output": None, "_compile_loss": None}


def worst_difference(one, two):
    return max(
        float(np.max(np.abs(a.numpy() - b.numpy())) / np.max(np.abs(a.numpy())))
        for a, b in zip(one.weights, two.weights, strict=True)
    )


def test_two_replicas_equal_one_device(float64, two_replicas):
    """And computing the blocks again, with statistics of both replicas, equals keeping them."""
    one, history_one = fit(tf.distribute.OneDeviceStrategy("CPU:0"))
    two, history_two = fit(two_replicas, rematerialize=True)
    assert worst_difference(one, two) < 1e-9
    assert history_one.keys() == history_two.keys() == {"loss", "logits_loss", "aux_logits_loss", "logits_miou"}
    for key, values in history_one.items():
        assert history_two[key] == pytest.approx(values, rel=1e-9), key


def test_without_synchronized_statistics_they_differ(config, two_replicas):
    """A layer on two replicas, and that all layers are as the recipe says."""
    for synchronized in (True, False):
        options = config(f"train.sync_batch_norm={str(synchronized).lower()}")
        model = build_model(options, CLASSES)
        layers = [layer for layer in model._flatten_layers() if isinstance(layer, BatchNormalization)]
        assert {layer.synchronized for layer in layers} == {synchronized}
    images = np.random.default_rng(2).normal(size=(2, 2, 5, 6, 3)).astype(np.float32)
    images[1] += 3

    def outputs(synchronized):
        with two_replicas.scope():
            layer = BatchNormalization(synchronized=synchronized)
            layer.build((None, 5, 6, 3))
        each = two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.constant(images[context.replica_id_in_sync_group])
        )
        step = tf.function(lambda each: two_replicas.run(lambda x: layer(x, training=True), (each,)))
        return np.stack(two_replicas.experimental_local_results(step(each)))

    axes = {True: (0, 1, 2, 3), False: (1, 2, 3)}
    for synchronized, axis in axes.items():
        mean, variance = images.mean(axis, keepdims=True), images.var(axis, keepdims=True)
        expected = (images - mean) / np.sqrt(variance + 1e-5)
        np.testing.assert_allclose(outputs(synchronized), expected, atol=1e-5)
