"""`psa_attention`: both forms against loops over positions, in every way that TensorFlow runs them."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.ops import psa_attention, psa_mask_implementation
from psanet_tf.ops.psa_attention import AUTO_BLOCK_SIZE, auto_blocks_for, resolved_block_size

pytestmark = [pytest.mark.any_keras, pytest.mark.optimized_graphs]

KINDS = list(itertools.product(("collect", "distribute"), (True, False)))
# (N, H, W), mask, blocks: those that fit, that overlap, larger than the map, single positions, rows, columns; maps of
# one row, one column, one position; masks that are smaller, larger, even.
CASES = [
    ((2, 6, 4), (11, 7), (2, 2)),
    ((1, 7, 9), (13, 17), (3, 4)),
    ((2, 5, 7), (5, 3), 2),
    ((1, 5, 4), (15, 3), (9, 1)),
    ((2, 1, 6), (1, 11), (1, 4)),
    ((1, 6, 1), (11, 5), 4),
    ((1, 1, 1), (1, 1), (2, 2)),
    ((1, 4, 5), (6, 4), (1, 1)),
    ((1, 4, 5), (6, 4), None),
]


def loops(features, predictors, kernel, direction, softmax):
    """The formula of the docstring, position by position."""
    n, h, w, _ = features.shape
    _, mask_h, mask_w = kernel.shape
    logits = np.zeros([n, h * w, h * w])
    for (y, x), (k, m) in itertools.product(itertools.product(range(h), range(w)), repeat=2):
        u, v = k - y + (mask_h - 1) // 2, m - x + (mask_w - 1) // 2
        if 0 <= u < mask_h and 0 <= v < mask_w:
            logits[:, y * w + x, k * w + m] = predictors[:, y, x] @ kernel[:, u, v]
    weights = logits if direction == "collect" else logits.transpose(0, 2, 1)
    if softmax:
        weights = np.exp(weights - weights.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
    return (weights @ features.reshape(n, h * w, -1)).reshape(features.shape)


def tensors(shape, mask_size, dtype="float64"):
    """Features, predictors, kernel, and a cotangent of the features."""
    rng = np.random.default_rng(3)
    return [
        tf.constant(rng.normal(size=size), dtype) for size in ((*shape, 3), (*shape, 4), (4, *mask_size), (*shape, 3))
    ]


def value_and_gradients(arguments, *options):
    *inputs, upstream = arguments
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = psa_attention(*inputs, *options)
    return [outputs, *tape.gradient(outputs, inputs, upstream)]


def assert_close(actual, expected, limit=1e-12):
    for ours, theirs in zip(actual, expected, strict=True):
        ours, theirs = (np.asarray(tf.cast(array, "float64")) for array in (ours, theirs))
        assert np.max(np.abs(ours - theirs)) <= limit * np.max(np.abs(theirs))


# Every case in one way, in turns, and the first one in all.
@pytest.mark.parametrize(
    ("shape", "mask_size", "block_size", "direction", "softmax"),
    [(*CASES[0], *kind) for kind in KINDS] + [(*case, *KINDS[i % 4]) for i, case in enumerate(CASES[1:])],
)
def test_both_forms_are_the_formula(shape, mask_size, block_size, direction, softmax):
    arguments = tensors(shape, mask_size)
    outputs, *gradients = value_and_gradients(arguments, direction, softmax, block_size)
    assert_close([outputs], [loops(*(array.numpy() for array in arguments[:3]), direction, softmax)])
    whole = value_and_gradients(arguments, direction, softmax, None)
    assert_close([outputs, *gradients], whole)
    # The whole form's gradients are TensorFlow's own: of ops of which each has tests elsewhere.


@pytest.mark.parametrize(("direction", "softmax"), [("collect", True), ("distribute", True), ("distribute", False)])
def test_graphs_dynamic_sizes_and_xla(direction, softmax):
    mask_size = (11, 13)
    specs = [tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None, None, None, 4])]
    specs = [*specs, tf.TensorSpec([4, *mask_size]), specs[0]]

    @tf.function(input_signature=[specs])
    def blocks_of_any_size(arguments):
        return value_and_gradients(arguments, direction, softmax)

    for shape in ((1, 5, 40), (2, 20, 6)):  # beyond the mask, beyond one of AUTO_BLOCK_SIZE
        arguments = tensors(shape, mask_size, "float32")
        assert_close(blocks_of_any_size(arguments), value_and_gradients(arguments, direction, softmax, None), 2e-6)

    @tf.function(jit_compile=True)
    def compiled(arguments):
        return value_and_gradients(arguments, direction, softmax, (3, 4))

    arguments = tensors((2, 5, 6), mask_size, "float32")
    assert_close(compiled(arguments), value_and_gradients(arguments, direction, softmax, None), 2e-6)


@pytest.mark.parametrize(("dtype", "limit"), [("float16", 4e-3), ("bfloat16", 3e-2)])
@pytest.mark.parametrize(("direction", "softmax"), [("collect", True), ("distribute", True)])
def test_half_precision(direction, softmax, dtype, limit):
    arguments = tensors((2, 6, 7), (11, 13), dtype)
    exact = value_and_gradients([tf.cast(array, "float64") for array in arguments], direction, softmax, None)
    outputs = value_and_gradients(arguments, direction, softmax, (4, 3))
    assert all(array.dtype == dtype for array in outputs)
    assert_close(outputs, exact, limit)


def test_large_logits_do_not_overflow():
    features, predictors, kernel, upstream = tensors((1, 6, 6), (11, 11), "float32")
    arguments = [features, 100 * predictors, 10 * kernel, upstream]
    for direction in ("collect", "distribute"):
        outputs, *gradients = value_and_gradients(arguments, direction, True, (2, 3))
        assert_close([outputs], [psa_attention(*arguments[:3], direction, True, None)], 1e-4)
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize("direction", ["collect", "distribute"])
def test_nothing_of_the_size_of_the_mask_or_the_matrix(direction):
    h, w = 64, 128
    signature = [
        tf.TensorSpec([1, h, w, 8]),
        tf.TensorSpec([1, h, w, 8]),
        tf.TensorSpec([8, 2 * h - 1, 2 * w - 1]),
        tf.TensorSpec([1, h, w, 8]),
    ]

    def largest(*options):
        function = tf.function(lambda *arguments: value_and_gradients(arguments, direction, *options), autograph=False)
        graph = function.get_concrete_function(*signature).graph
        graphs = [graph, *(graph._get_function(name).graph for name in graph._functions)]
        assert len(graphs) > 1 or options == (True, None)
        shapes = [tensor.shape for graph in graphs for op in graph.get_operations() for tensor in op.outputs]
        assert all(shape.is_fully_defined() for shape in shapes if shape.rank not in (None, 0))
        return max(shape.num_elements() for shape in shapes if shape.rank)

    assert largest(True, None) == h * w * (2 * h - 1) * (2 * w - 1)
    rows, columns = AUTO_BLOCK_SIZE
    assert largest() <= rows * columns * (h + rows - 1) * (w + columns - 1)
    assert largest() < (h * w) ** 2 / 10


@pytest.mark.parametrize("device, largest", [("cpu", 38), ("gpu", 76)])
def test_auto_takes_blocks_where_they_are_worth_it(monkeypatch, device, largest):
    """Which of the devices, the machine says, or whoever traces for another one."""

    def blocks(length):
        return resolved_block_size("auto", (length, length), (2 * length - 1, 2 * length - 1))

    def check():
        assert blocks(largest) is None
        assert blocks(largest + 1) == AUTO_BLOCK_SIZE
        assert resolved_block_size("auto", (None, 30), (59, 59)) == AUTO_BLOCK_SIZE
        assert resolved_block_size(None, (500, 500), (999, 999)) is None

    for other in ("cpu", "gpu"):
        monkeypatch.setattr(
            tf.config, "get_visible_devices", lambda kind, other=other: ["one"] * (kind.lower() == other)
        )
        with auto_blocks_for(device):
            check()
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["one"] * (kind.lower() == device))
    check()


def test_the_op_is_used_where_it_is_asked_for(library):
    """Also where "auto" would take blocks, which have no use for it: the size is dynamic."""
    specs = [tf.TensorSpec([1, None, None, 3]), tf.TensorSpec([1, None, None, 4]), tf.TensorSpec([4, 5, 5])]

    def ops(implementation):
        function = tf.function(lambda *tensors: psa_attention(*tensors, implementation=implementation), autograph=False)
        return {op.type for op in function.get_concrete_function(*specs).graph.get_operations()}

    assert "PsaMask" in ops("custom") and "PsaMask" not in ops("auto")
    with psa_mask_implementation("custom"):
        assert "PsaMask" in ops("auto")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direction": "both"}, "direction must be one of .*, got 'both'"),
        ({"block_size": (0, 3)}, r"block_size must be positive, got \(0, 3\)"),
        ({"block_size": -1}, "block_size must be positive, got -1"),
        ({"features": tf.zeros([1, 4, 4, 3], tf.int32)}, "features must be one of .*, got int32"),
        ({"features": tf.zeros([4, 4, 3])}, r"features must be \[N, H, W, channels\]"),
        ({"predictors": tf.zeros([1, 4, 4, 2], tf.float16)}, "dtype of features, float32, got float16"),
        ({"predictors": tf.zeros([1, 4, 5, 2])}, "predictors must be of the size of features"),
        ({"kernel": tf.zeros([3, 7, 7])}, r"kernel must be \[2, mask_h, mask_w\]"),
        ({"kernel": tf.zeros([2, 49])}, r"kernel must be \[2, mask_h, mask_w\]"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {
        "features": tf.zeros([1, 4, 4, 3]),
        "predictors": tf.zeros([1, 4, 4, 2]),
        "kernel": tf.zeros([2, 7, 7]),
    }
    with pytest.raises(ValueError, match=message):
        psa_attention(**(arguments | change))
