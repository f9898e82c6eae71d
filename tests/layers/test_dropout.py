"""`SpatialDropout2D`: Keras's on one device, and a mask for every replica on several."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSANet
from psanet_tf.keras_api import LEGACY_KERAS, keras
from psanet_tf.layers import SpatialDropout2D

ONES = np.ones([2, 3, 4, 64], "float32")


def masks(layer, count=3):
    return [np.asarray(layer(ONES, training=True)) for _ in range(count)]


@pytest.mark.skipif(LEGACY_KERAS, reason="legacy Keras numbers its random operations")
def test_on_one_device_it_is_keras_own_layer():
    ours = masks(SpatialDropout2D(0.5, seed=3))
    for mask, expected in zip(ours, masks(keras.layers.SpatialDropout2D(0.5, seed=3)), strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_whole_channels_are_dropped_in_training_only():
    layer = SpatialDropout2D(0.25)
    np.testing.assert_array_equal(layer(ONES), ONES)
    np.testing.assert_array_equal(layer(ONES, training=False), ONES)
    mask = masks(layer, 1)[0]
    np.testing.assert_array_equal(mask, np.broadcast_to(mask[:, :1, :1], mask.shape))
    assert set(np.unique(mask)) == {0, np.float32(1 / 0.75)}
    np.testing.assert_array_equal(SpatialDropout2D(0)(ONES, training=True), ONES)


def replica_masks(strategy, seed, steps=3):
    """Kept channels, bool [steps, replicas, images, channels]."""
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        layer = SpatialDropout2D(0.5)
        layer.build(ONES.shape)

    @tf.function
    def step():
        return strategy.run(lambda: layer(tf.constant(ONES), training=True))

    results = [strategy.experimental_local_results(step()) for _ in range(steps)]
    values = np.array([[part.numpy() for part in result] for result in results])
    assert set(np.unique(values)) == {0, 2}
    np.testing.assert_array_equal(values, np.broadcast_to(values[..., :1, :1, :], values.shape))
    return values[..., 0, 0, :] > 0


def test_replicas_and_steps_have_masks_of_their_own(two_replicas):
    kept = replica_masks(two_replicas, seed=1)
    steps, replicas, _, channels = kept.shape
    assert (steps, replicas) == (3, 2)
    rows = kept.reshape(-1, channels)
    # Independent masks agree in about half of 64 channels; 16 and 48 are four deviations away.
    for i in range(len(rows)):
        agreeing = (rows[i + 1 :] == rows[i]).sum(axis=1)
        assert np.all((agreeing >= 16) & (agreeing <= 48))


@pytest.mark.skipif(LEGACY_KERAS, reason="legacy Keras numbers its random operations")
def test_masks_are_a_function_of_the_seed(two_replicas):
    first, second = (replica_masks(two_replicas, seed) for seed in (1, 2))
    np.testing.assert_array_equal(replica_masks(two_replicas, seed=1), first)
    assert not np.array_equal(first, second)


def test_the_network_drops_by_it():
    model = PSANet(5, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 25, 3), dropout=0.3, use_psa=False)
    for name in ("head_dropout", "aux_dropout"):
        layer = model.get_layer(name)
        assert isinstance(layer, SpatialDropout2D)
        assert (layer.rate, layer.data_format) == (0.3, "channels_last")
