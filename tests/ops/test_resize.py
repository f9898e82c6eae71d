"""`resize_bilinear` against its formulas, evaluated with NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.ops import resize_bilinear

SIZES = [
    ((5, 7), (5, 7)),
    ((5, 7), (9, 13)),
    ((9, 13), (5, 7)),
    ((8, 6), (4, 3)),
    ((4, 3), (8, 6)),
    ((7, 9), (1, 1)),
    ((1, 1), (3, 4)),
    ((1, 5), (2, 3)),
    ((3, 3), (1, 7)),
]


def interpolate(values, length, axis, align_corners):
    """One axis, each output from its two neighbours."""
    last = values.shape[axis] - 1
    if align_corners:
        source = np.arange(length) * (last / (length - 1) if length > 1 else 0.0)
    else:
        source = np.clip((np.arange(length) + 0.5) * (values.shape[axis] / length) - 0.5, 0, last)
    low = np.floor(source + 1e-9).astype(int)
    high = np.minimum(low + 1, last)
    fraction = np.expand_dims(source - low, tuple(i for i in range(values.ndim) if i != axis))
    return np.take(values, low, axis) * (1 - fraction) + np.take(values, high, axis) * fraction


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2), ("float32", 1e-5), ("float64", 1e-13)]
)
@pytest.mark.parametrize("mode", ["eager", "dynamic", "xla"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("decided", ["before", "in the graph"])
def test_values_and_gradient_match_the_formula(dtype, tolerance, mode, align_corners, decided):
    rng = np.random.default_rng(0)
    for (h, w), size in SIZES:
        x = tf.cast(rng.normal(size=(2, h, w, 3)), dtype)
        gy = tf.cast(rng.normal(size=(2, *size, 3)), dtype)

        def forward_and_gradient(x, gy, flag, size=size):
            with tf.GradientTape() as tape:
                tape.watch(x)
                size = tf.unstack(tf.shape(gy)[1:3]) if mode == "dynamic" else size
                y = resize_bilinear(x, size, align_corners if decided == "before" else flag)
            return y, tape.gradient(y, x, gy)

        if mode == "dynamic":
            specs = [tf.TensorSpec([None, None, None, 3], dtype)] * 2 + [tf.TensorSpec([], tf.bool)]
            forward_and_gradient = tf.function(forward_and_gradient, specs)
        elif mode == "xla":
            forward_and_gradient = tf.function(forward_and_gradient, jit_compile=True)
        y, gx = forward_and_gradient(x, gy, tf.constant(align_corners))
        assert y.dtype == gx.dtype == dtype
        exact = interpolate(tf.cast(x, tf.float64).numpy(), size[0], 1, align_corners)
        exact = interpolate(exact, size[1], 2, align_corners)
        np.testing.assert_allclose(tf.cast(y, tf.float64), exact, atol=3 * tolerance)
        # The gradient is the adjoint: <resize(x), gy> = <x, gx>.
        left = np.sum(exact * tf.cast(gy, tf.float64).numpy())
        right = np.sum(tf.cast(x, tf.float64).numpy() * tf.cast(gx, tf.float64).numpy())
        assert abs(left - right) <= 10 * tolerance * np.sqrt(exact.size)


def test_halving_an_odd_size_takes_every_second_sample():
    x = tf.random.stateless_normal([1, 9, 7, 2], seed=[0, 1])
    np.testing.assert_array_equal(resize_bilinear(x, (5, 4)), x[:, ::2, ::2])


def test_half_pixel_centres_halve_an_even_size_by_means():
    x = tf.random.stateless_normal([2, 8, 6, 3], seed=[0, 1])
    means = tf.nn.avg_pool2d(x, 2, 2, "VALID")
    np.testing.assert_allclose(resize_bilinear(x, (4, 3), align_corners=False), means, atol=1e-6)
    assert resize_bilinear(x, (8, 6), align_corners=False) is x


def test_rank_is_checked():
    with pytest.raises(ValueError, match=r"must be \[N, H, W, C\]"):
        resize_bilinear(tf.zeros([3, 3, 1]), (2, 2))
