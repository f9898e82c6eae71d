"""`BatchNormalization` against the formula, fused and not, on one replica and on two."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.layers import BatchNormalization


def reference(x, gamma, beta, epsilon=1e-5):
    """Output, mean and unbiased variance in float64."""
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    count = x.size // x.shape[-1]
    y = (x - mean) / np.sqrt(variance + epsilon) * gamma + beta
    return y, mean, variance * count / (count - 1)


def made(dtype, **kwargs):
    layer = BatchNormalization(dtype=dtype, **kwargs)
    layer.build((None, None, None, 3))
    values = [[0.5, 1.5, 2.0], [0.1, -0.2, 0.3], [0.2, 0.4, -0.1], [1.0, 2.0, 0.5]]
    layer.set_weights([np.array(value) for value in values])
    return layer, [np.array(value) for value in values]


@pytest.mark.parametrize(
    ("dtype", "limit"), [("float64", 1e-12), ("float32", 2e-6), ("mixed_float16", 5e-3), ("mixed_bfloat16", 3e-2)]
)
def test_training_step_and_inference_follow_the_formula(dtype, limit):
    layer, (gamma, beta, mean, variance) = made(dtype)
    x = np.random.default_rng(0).normal(1.0, 2.0, (2, 4, 5, 3))
    expected = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(tf.cast(layer(x), tf.float64), expected, atol=4 * limit)
    y, batch_mean, batch_variance = reference(x, gamma, beta)
    np.testing.assert_allclose(tf.cast(layer(x, training=True), tf.float64), y, atol=4 * limit)
    np.testing.assert_allclose(layer.moving_mean, 0.9 * mean + 0.1 * batch_mean, rtol=limit, atol=limit)
    np.testing.assert_allclose(layer.moving_variance, 0.9 * variance + 0.1 * batch_variance, rtol=limit, atol=limit)


def test_frozen_layer_uses_and_keeps_its_statistics():
    layer, (_, _, mean, variance) = made("float32")
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype("float32")
    expected = layer(x)
    layer.trainable = False
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(layer.moving_mean, mean.astype("float32"))
    np.testing.assert_array_equal(layer.moving_variance, variance.astype("float32"))


def test_other_ranks_work_too():
    layer = BatchNormalization()
    x = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")
    y = layer(x, training=True)
    np.testing.assert_allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_replicas_equal_one(dtype, two_replicas):
    strategy = two_replicas
    x = np.random.default_rng(2).normal(3.0, 1.0, (4, 5, 6, 3)).astype(dtype)
    gy = np.random.default_rng(3).normal(size=x.shape).astype(dtype)
    single, values = made(dtype)
    with strategy.scope():
        mirrored, _ = made(dtype, synchronized=True)

    def step(layer, x, gy):
        gamma, beta = (w if isinstance(w, tf.Variable) else w.value for w in (layer.gamma, layer.beta))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, *tape.gradient(y, [x, gamma, beta], gy)

    @tf.function
    def mirrored_step(x, gy):
        return strategy.run(lambda x, gy: step(mirrored, x, gy), (x, gy))

    def halves(array):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(np.split(array, 2)[context.replica_id_in_sync_group])
        )

    y, gx, g_gamma, g_beta = (strategy.experimental_local_results(r) for r in mirrored_step(halves(x), halves(gy)))
    expected = step(single, tf.constant(x), tf.constant(gy))
    limit = {"float32": 1e-5, "float64": 1e-13}[dtype]
    np.testing.assert_allclose(np.concatenate([part.numpy() for part in y]), expected[0], atol=limit)
    np.testing.assert_allclose(np.concatenate([part.numpy() for part in gx]), expected[1], atol=limit)
    np.testing.assert_allclose(sum(part.numpy() for part in g_gamma), expected[2], atol=10 * limit)
    np.testing.assert_allclose(sum(part.numpy() for part in g_beta), expected[3], atol=10 * limit)
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(getattr(mirrored, name), getattr(single, name), rtol=limit)
    assert not np.allclose(single.moving_mean, values[2], atol=1e-3)


def test_config_and_file_round_trip(tmp_path):
    model = keras.Sequential([keras.Input([4, 4, 3]), BatchNormalization(momentum=0.8, synchronized=True)])
    model.save(tmp_path / "norm.keras")
    layer = keras.saving.load_model(tmp_path / "norm.keras", compile=False).layers[-1]
    assert (layer.momentum, layer.epsilon, layer.synchronized) == (0.8, 1e-5, True)


def test_another_axis_is_refused():
    with pytest.raises(ValueError, match="axis must be -1, got 1"):
        BatchNormalization(axis=1)
