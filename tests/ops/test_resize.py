"""`resize_bilinear` against its formulas, evaluated with NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.ops import resize_bilinear

# What Keras is in use makes no difference here.
pytestmark = [pytest.mark.any_keras, pytest.mark.optimized_graphs]

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
# XLA takes its time to compile, and forms differ in what is around the interpolation, not in the interpolation.
FEW_SIZES = [((5, 7), (9, 13)), ((8, 6), (4, 3)), ((3, 3), (1, 7))]
ALL_UNDER_XLA = [("before: True", "float32"), ("before: True", "float64"), ("before: False", "float32")]
# The dtype has no part in which form it is: under XLA each dtype meets one of them, and float32 all.
CASES = [
    (decided, mode, dtype, tolerance)
    for decided in ("before: True", "before: False", "in the graph")
    for mode in ("eager", "dynamic", "xla")
    for dtype, tolerance in (("float16", 2e-3), ("bfloat16", 2e-2), ("float32", 1e-5), ("float64", 1e-13))
    if mode != "xla" or decided == "before: True" or dtype == "float32"
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


def forward_and_gradient(x, gy, size, align_corners):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = resize_bilinear(x, size, align_corners)
    return y, tape.gradient(y, x, gy)


@pytest.mark.parametrize(("decided", "mode", "dtype", "tolerance"), CASES)
def test_values_and_gradient_match_the_formula(decided, mode, dtype, tolerance):
    sizes = SIZES if mode != "xla" or (decided, dtype) in ALL_UNDER_XLA else FEW_SIZES

    def all_sizes(xs, gys, flag):
        flag = {"before: True": True, "before: False": False}.get(decided, flag)
        return [forward_and_gradient(x, gy, size, flag) for x, gy, (_, size) in zip(xs, gys, sizes, strict=True)]

    def any_size(x, gy, flag):
        flag = {"before: True": True, "before: False": False}.get(decided, flag)
        return forward_and_gradient(x, gy, tf.unstack(tf.shape(gy)[1:3]), flag)

    if mode == "eager":
        function = all_sizes
    elif mode == "xla":
        function = tf.function(all_sizes, jit_compile=True)  # one program for all sizes
    else:
        traced = tf.function(any_size, [tf.TensorSpec([None, None, None, 3], dtype)] * 2 + [tf.TensorSpec([], tf.bool)])

        def function(xs, gys, flag):
            return [traced(x, gy, flag) for x, gy in zip(xs, gys, strict=True)]

    rng = np.random.default_rng(0)
    xs = [tf.cast(rng.normal(size=(2, *before, 3)), dtype) for before, _ in sizes]
    gys = [tf.cast(rng.normal(size=(2, *size, 3)), dtype) for _, size in sizes]
    for align_corners in {"before: True": [True], "before: False": [False]}.get(decided, [True, False]):
        results = function(xs, gys, tf.constant(align_corners))
        for x, gy, (y, gx), (_, size) in zip(xs, gys, results, sizes, strict=True):
            assert y.dtype == gx.dtype == dtype
            exact = interpolate(tf.cast(x, tf.float64).numpy(), size[0], 1, align_corners)
            exact = interpolate(exact, size[1], 2, align_corners)
            np.testing.assert_allclose(tf.cast(y, tf.float64), exact, atol=3 * tolerance)
            # The gradient is the adjoint: <resize(x), gy> = <x, gx>.
            left = np.sum(exact * tf.cast(gy, tf.float64).numpy())
            right = np.sum(tf.cast(x, tf.float64).numpy() * tf.cast(gx, tf.float64).numpy())
            assert abs(left - right) <= 10 * tolerance * np.sqrt(exact.size)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_xla_is_given_no_resize_but_matrix_products(jit_compile):
    @tf.function(jit_compile=jit_compile)
    def training_step(x):
        return forward_and_gradient(x, tf.zeros([2, 9, 13, 3]), (9, 13), True)

    graph = training_step.get_concrete_function(tf.TensorSpec([2, 5, 7, 3])).graph
    kinds = [op.type for op in graph.get_operations()]
    assert kinds.count("ResizeBilinear") == (not jit_compile)
    assert sum("MatMul" in kind for kind in kinds) == (4 if jit_compile else 2)


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
