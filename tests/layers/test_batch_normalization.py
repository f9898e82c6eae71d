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


def step(layer, x, gy):
    """(output, gradients of input, scale and shift) of a step of training."""
    gamma, beta = (w if isinstance(w, tf.Variable) else w.value for w in (layer.gamma, layer.beta))
    with tf.GradientTape() as tape:
        tape.watch([x, gamma, beta])
        y = layer(x, training=True)
    return y, *tape.gradient(y, [x, gamma, beta], gy)


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


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-12), ("float32", 1e-5), ("mixed_float16", 1e-2)])
def test_gradient_of_a_frozen_layer_follows_the_formula(dtype, limit):
    layer, (gamma, _, mean, variance) = made(dtype)
    layer.trainable = False
    x = tf.cast(np.random.default_rng(0).normal(size=(2, 4, 5, 3)), layer.compute_dtype)
    gy = tf.cast(np.random.default_rng(1).normal(size=x.shape), layer.compute_dtype)
    _, gx, g_gamma, g_beta = step(layer, x, gy)
    x, gy = (tf.cast(value, tf.float64).numpy() for value in (x, gy))
    normalized = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(tf.cast(gx, tf.float64), gy * gamma / np.sqrt(variance + 1e-5), atol=4 * limit)
    np.testing.assert_allclose(g_gamma, (gy * normalized).sum((0, 1, 2)), atol=10 * limit)
    np.testing.assert_allclose(g_beta, gy.sum((0, 1, 2)), atol=10 * limit)


@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_of_the_gradient_is_that_of_the_formula(frozen):
    layer, (gamma, beta, mean, variance) = made("float64")
    layer.trainable = not frozen
    x, weights = (tf.constant(np.random.default_rng(seed).normal(size=(2, 4, 5, 3))) for seed in (0, 1))

    def formula(x, training):
        moments = (mean, variance) if frozen else tf.nn.moments(x, [0, 1, 2])
        return tf.nn.batch_normalization(x, *moments, beta, gamma, 1e-5)

    def second(function):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = tf.reduce_sum(tf.sin(function(x, training=True)) * weights)
            square = tf.reduce_sum(tf.square(inner.gradient(value, x)))
        return outer.gradient(square, x)

    np.testing.assert_allclose(second(layer), second(formula), atol=1e-12)


def test_other_ranks_work_too():
    layer = BatchNormalization()
    x = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")
    y = layer(x, training=True)
    np.testing.assert_allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_two_replicas_equal_one(dtype, two_replicas):
    policy = "mixed_float16" if dtype == "float16" else dtype
    strategy = two_replicas
    x = np.random.default_rng(2).normal(3.0, 1.0, (4, 5, 6, 3)).astype(dtype)
    gy = np.random.default_rng(3).normal(size=x.shape).astype(dtype)
    single, values = made(policy)
    with strategy.scope():
        mirrored, _ = made(policy, synchronized=True)

    @tf.function
    def mirrored_step(x, gy):
        return strategy.run(lambda x, gy: step(mirrored, x, gy), (x, gy))

    def halves(array):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(np.split(array, 2)[context.replica_id_in_sync_group])
        )

    y, gx, g_gamma, g_beta = (strategy.experimental_local_results(r) for r in mirrored_step(halves(x), halves(gy)))
    expected = step(single, tf.constant(x), tf.constant(gy))
    limit = {"float16": 5e-3, "float32": 1e-5, "float64": 1e-13}[dtype]
    np.testing.assert_allclose(np.concatenate([part.numpy() for part in y]), expected[0], atol=limit)
    np.testing.assert_allclose(np.concatenate([part.numpy() for part in gx]), expected[1], atol=limit)
    np.testing.assert_allclose(sum(part.numpy() for part in g_gamma), expected[2], atol=10 * limit)
    np.testing.assert_allclose(sum(part.numpy() for part in g_beta), expected[3], atol=10 * limit)
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(getattr(mirrored, name), getattr(single, name), rtol=limit)
    assert not np.allclose(single.moving_mean, values[2], atol=1e-3)


@pytest.mark.parametrize(
    ("policy", "frozen", "forward_limit", "backward_limit"),
    [("float32", False, 5, 6), ("mixed_float16", False, 6, 8), ("mixed_float16", True, 1, 6)],
)
def test_few_operations_on_whole_maps_and_no_copies_for_the_gradient(
    policy, frozen, forward_limit, backward_limit, two_replicas
):
    with two_replicas.scope():
        layer, _ = made(policy, synchronized=True)
    layer.trainable = not frozen
    spec = tf.TensorSpec([2, 4, 5, 3], layer.compute_dtype)
    traced = tf.function(lambda x, gy: two_replicas.run(lambda *args: step(layer, *args), (x, gy)))
    y, *gradients = tf.nest.map_structure(
        lambda value: two_replicas.experimental_local_results(value)[0],
        traced.get_concrete_function(spec, spec).structured_outputs,
    )
    forward = ancestors([y])
    backward = ancestors(gradients) - forward

    def on_maps(operations):
        return [op for op in operations if any(is_map(tensor) for tensor in [*op.inputs, *op.outputs])]

    def is_map(tensor):
        return tensor.shape.num_elements() == 2 * 4 * 5 * 3

    assert 0 < len(on_maps(forward)) <= forward_limit
    assert 0 < len(on_maps(backward)) <= backward_limit
    made_before = {tensor.ref() for op in forward for tensor in op.outputs}
    kept = {tensor.ref() for op in backward for tensor in op.inputs if is_map(tensor)} & made_before
    # The input is the graph's, and comes in through identities: nothing else is kept.
    assert not kept


def ancestors(tensors):
    """Operations that tensors are made by, without those that pass on what they are given."""
    found, todo = set(), [tensor.op for tensor in tensors if tensor is not None]
    while todo:
        op = todo.pop()
        if op not in found:
            found.add(op)
            todo += [tensor.op for tensor in op.inputs]
    return {op for op in found if op.type not in ("Identity", "IdentityN", "Placeholder", "StopGradient")}


def test_config_and_file_round_trip(tmp_path):
    model = keras.Sequential([keras.Input([4, 4, 3]), BatchNormalization(momentum=0.8, synchronized=True)])
    model.save(tmp_path / "norm.keras")
    layer = keras.saving.load_model(tmp_path / "norm.keras", compile=False).layers[-1]
    assert (layer.momentum, layer.epsilon, layer.synchronized) == (0.8, 1e-5, True)


def test_another_axis_is_refused():
    with pytest.raises(ValueError, match="axis must be -1, got 1"):
        BatchNormalization(axis=1)
