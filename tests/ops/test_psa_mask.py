"""`psa_mask` against the original's numbers and against a loop."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.ops import psa_mask

DTYPES = ["float16", "bfloat16", "float32", "float64"]


def gather_by_loop(mask, mask_size):
    """The formula of the docstring, one element at a time."""
    n, h, w, _ = mask.shape
    mask_h, mask_w = mask_size
    out = np.zeros((n, h, w, h, w), mask.dtype)
    for row in range(h):
        for column in range(w):
            for k in range(h):
                for l in range(w):  # noqa: E741
                    i, j = k - row + (mask_h - 1) // 2, l - column + (mask_w - 1) // 2
                    if 0 <= i < mask_h and 0 <= j < mask_w:
                        out[:, row, column, k, l] = mask[:, row, column, i * mask_w + j]
    return out.reshape(n, h * w, h * w)


def forward_and_gradient(x, gy, mask_size):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = psa_mask(x, mask_size)
    return y, tape.gradient(y, x, gy)


@pytest.mark.parametrize("mode", ["eager", "graph", "dynamic", "xla"])
def test_golden_cases_are_bit_equal(golden, mode):
    arrays, cases = golden("psa_mask")
    assert len(cases) == 15
    for case in cases:
        key, mask_size = case["key"], (case["mask_h"], case["mask_w"])
        x, gy = tf.constant(arrays[f"{key}/x"]), tf.constant(arrays[f"{key}/gy"])
        function = forward_and_gradient
        if mode == "dynamic":
            shapes = [tf.TensorSpec([None, None, None, x.shape[3]]), tf.TensorSpec([None, None, None])]
            function = tf.function(lambda x, gy, size=mask_size: forward_and_gradient(x, gy, size), shapes)
            y, gx = function(x, gy)
        else:
            if mode != "eager":
                function = tf.function(forward_and_gradient, jit_compile=mode == "xla")
            y, gx = function(x, gy, mask_size)
        np.testing.assert_array_equal(y, arrays[f"{key}/y"], err_msg=key)
        np.testing.assert_array_equal(gx, arrays[f"{key}/gx"], err_msg=key)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_moves_bits(dtype):
    rng = np.random.default_rng(3)
    for h, w, mask_size in [(3, 4, (5, 7)), (1, 1, (1, 1)), (1, 5, (3, 3)), (4, 3, (9, 1)), (2, 2, (7, 5))]:
        x = tf.cast(rng.normal(size=(2, h, w, mask_size[0] * mask_size[1])), dtype)
        y = psa_mask(x, mask_size)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y.numpy(), gather_by_loop(x.numpy(), mask_size))


def test_default_mask_covers_every_offset():
    x = tf.random.stateless_normal([1, 3, 4, 35], seed=[1, 2])
    np.testing.assert_array_equal(psa_mask(x), psa_mask(x, (5, 7)))
    assert psa_mask(x).shape == (1, 12, 12)


def test_gradient_of_the_gradient_is_the_gather():
    x = tf.random.stateless_normal([1, 3, 2, 15], seed=[1, 2])
    v = tf.random.stateless_normal([1, 6, 6], seed=[3, 4])
    with tf.GradientTape() as outer:
        outer.watch(v)
        _, gx = forward_and_gradient(x, v, (5, 3))
    seed = tf.random.stateless_normal(gx.shape, seed=[5, 6])
    np.testing.assert_array_equal(outer.gradient(gx, v, seed), psa_mask(seed, (5, 3)))


@pytest.mark.parametrize(
    ("shape", "dtype", "mask_size", "message"),
    [
        ([1, 3, 3], "float32", (3, 3), "must be .N, H, W, mask_h"),
        ([1, 3, 3, 9], "int32", (3, 3), "got int32"),
        ([1, 3, 3, 12], "float32", (3, 4), "odd and positive.*use 5"),
        ([1, 3, 3, 9], "float32", (-3, -3), "odd and positive"),
        ([1, 3, 3, 10], "float32", (3, 3), "has 10 channels.*3 . 3 = 9"),
        ([1, 3, 3, 9], "float32", None, "has 9 channels.*5 . 5 = 25"),
        ([1, 3, 3, 9], "float32", 3, "two odd integers"),
    ],
)
def test_wrong_arguments_are_named(shape, dtype, mask_size, message):
    with pytest.raises(ValueError, match=message):
        psa_mask(tf.zeros(shape, dtype), mask_size)


def test_dynamic_size_needs_a_mask_size():
    function = tf.function(psa_mask, [tf.TensorSpec([None, None, None, 9])])
    with pytest.raises(ValueError, match="mask_size is needed where H and W are dynamic"):
        function(tf.zeros([1, 2, 2, 9]))
