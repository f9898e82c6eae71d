"""`psa_mask`, compiled op and stock ops: against the original's numbers and against a loop."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from psanet_tf.ops import OpUnavailableError, psa_mask, psa_mask_implementation
from psanet_tf.ops.op_library import load_op_library

# What Keras is in use makes no difference here.
pytestmark = [pytest.mark.any_keras, pytest.mark.optimized_graphs]

DTYPES = ["float16", "bfloat16", "float32", "float64"]


@pytest.fixture(scope="session", params=["custom", "stock"])
def implementation(request):
    if request.param == "custom":
        _need_op()
    return request.param


@pytest.fixture(scope="session")
def op():
    return _need_op()


def _need_op():
    try:
        return load_op_library()
    except OpUnavailableError as error:
        pytest.skip(str(error))


def gather_by_loop(mask, mask_size):
    """The formula of the docstring, one element at a time, and its transpose: (forward, gradient of a cotangent)."""
    n, h, w, _ = mask.shape
    mask_h, mask_w = mask_size
    used = []
    for row in range(h):
        for column in range(w):
            for k in range(h):
                for l in range(w):  # noqa: E741
                    i, j = k - row + (mask_h - 1) // 2, l - column + (mask_w - 1) // 2
                    if 0 <= i < mask_h and 0 <= j < mask_w:
                        used.append(((row, column, i * mask_w + j), (row * w + column, k * w + l)))

    out = np.zeros((n, h * w, h * w), mask.dtype)
    for (row, column, channel), (p, q) in used:
        out[:, p, q] = mask[:, row, column, channel]

    def gradient(cotangent):
        gx = np.zeros_like(mask)
        for (row, column, channel), (p, q) in used:
            gx[:, row, column, channel] += cotangent[:, p, q]
        return gx

    return out, gradient


def in_xla(implementation):
    """What a function that XLA compiles may ask for: "auto" in place of the op, which XLA cannot compile."""
    return "auto" if implementation == "custom" else implementation


def forward_and_gradient(x, gy, mask_size, implementation):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = psa_mask(x, mask_size, implementation)
    return y, tape.gradient(y, x, gy)


def forwards_and_gradients(xs, gys, mask_sizes, implementation, mode):
    """[(y, gradient)] of several cases: in graphs all of them in one function, which is compiled once."""

    def function(xs, gys):
        return [forward_and_gradient(*case, implementation) for case in zip(xs, gys, mask_sizes, strict=True)]

    if mode == "dynamic":
        masks = [tf.TensorSpec([None, None, None, x.shape[3]], x.dtype) for x in xs]
        function = tf.function(function, [masks, [tf.TensorSpec([None, None, None], gy.dtype) for gy in gys]])
    elif mode == "graph":
        function = tf.function(function)
    elif mode == "xla":
        implementation = in_xla(implementation)
        function = tf.function(function, jit_compile=True)
    return function(xs, gys)


@pytest.mark.parametrize("mode", ["eager", "graph", "dynamic", "xla"])
def test_golden_cases_are_bit_equal(golden, implementation, mode):
    arrays, cases = golden("psa_mask")
    assert len(cases) == 15
    if mode != "eager":  # the smaller, the larger and the equal mask; a map of one row
        cases = [case for case in cases if case["key"].endswith("4x7") or case["key"] in ("full_1x6", "large_1x6")]
        assert len(cases) == 7
    if mode == "xla" and implementation == "custom":
        cases = cases[:1]  # stock ops there, too: the same programs
    xs, gys = ([tf.constant(arrays[f"{case['key']}/{name}"]) for case in cases] for name in ("x", "gy"))
    mask_sizes = [(case["mask_h"], case["mask_w"]) for case in cases]
    results = forwards_and_gradients(xs, gys, mask_sizes, implementation, mode)
    for case, (y, gx) in zip(cases, results, strict=True):
        np.testing.assert_array_equal(y, arrays[f"{case['key']}/y"], err_msg=case["key"])
        np.testing.assert_array_equal(gx, arrays[f"{case['key']}/gx"], err_msg=case["key"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_golden_cases_are_bit_equal_in_every_dtype(golden, implementation, dtype):
    arrays, cases = golden("psa_mask")
    for case in cases:
        x, y, gy, gx = (tf.cast(arrays[f"{case['key']}/{name}"], dtype) for name in ("x", "y", "gy", "gx"))
        found_y, found_gx = forward_and_gradient(x, gy, (case["mask_h"], case["mask_w"]), implementation)
        assert found_y.dtype == found_gx.dtype == dtype
        np.testing.assert_array_equal(found_y.numpy(), y.numpy(), err_msg=case["key"])
        np.testing.assert_array_equal(found_gx.numpy(), gx.numpy(), err_msg=case["key"])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7)),
    mask_size=st.tuples(st.integers(1, 15), st.integers(1, 17)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
)
def test_custom_and_stock_equal_the_loop(op, size, mask_size, dtype, seed):
    n, h, w = size
    rng = np.random.default_rng(seed)
    x = tf.cast(rng.normal(size=(n, h, w, mask_size[0] * mask_size[1])), dtype)
    gy = tf.cast(rng.normal(size=(n, h * w, h * w)), dtype)
    expected_y, gradient = gather_by_loop(x.numpy(), mask_size)
    for implementation in ("custom", "stock"):
        y, gx = forward_and_gradient(x, gy, mask_size, implementation)
        np.testing.assert_array_equal(y.numpy(), expected_y, err_msg=implementation)
        np.testing.assert_array_equal(gx.numpy(), gradient(gy.numpy()), err_msg=implementation)


@pytest.mark.parametrize("mode", ["eager", "dynamic", "xla"])
def test_even_masks_equal_the_loop(implementation, mode):
    # Shorter and longer than the window of 9 x 11 offsets, odd beside even.
    mask_sizes = [(4, 7), (10, 14), (16, 3), (1, 2)]
    if mode == "eager":
        mask_sizes += [(2, 2), (6, 4), (9, 12)]
    rng = np.random.default_rng(3)
    xs = [tf.constant(rng.normal(size=(2, 5, 6, rows * columns)), tf.float32) for rows, columns in mask_sizes]
    gys = [tf.constant(rng.normal(size=(2, 30, 30)), tf.float32) for _ in mask_sizes]
    results = forwards_and_gradients(xs, gys, mask_sizes, implementation, mode)
    for x, gy, mask_size, (y, gx) in zip(xs, gys, mask_sizes, results, strict=True):
        expected, gradient = gather_by_loop(x.numpy(), mask_size)
        np.testing.assert_array_equal(y, expected, err_msg=str(mask_size))
        np.testing.assert_array_equal(gx, gradient(gy.numpy()), err_msg=str(mask_size))


def test_an_even_mask_reaches_one_step_farther_down_and_right():
    # 66: offsets -32 to 33, so the last entry is the position 33 steps on.
    x = tf.reshape(tf.range(1.0, 67), [1, 1, 1, 66]) * tf.ones([1, 1, 40, 1])
    y = psa_mask(x, (1, 66)).numpy()[0]
    for p in range(40):
        for q in range(40):
            assert y[p, q] == (q - p + 33 if -32 <= q - p <= 33 else 0)


@pytest.mark.parametrize("h, w", [(17, 57), (30, 30)])
def test_custom_equals_stock_at_real_sizes(op, h, w):
    x = tf.random.stateless_normal([2, h, w, (2 * h - 1) * (2 * w - 1)], seed=[1, h])
    gy = tf.random.stateless_normal([2, h * w, h * w], seed=[2, w])
    mask_size = (2 * h - 1, 2 * w - 1)
    found, expected = (forward_and_gradient(x, gy, mask_size, form) for form in ("custom", "stock"))
    for actual, desired in zip(found, expected, strict=True):
        assert tf.reduce_all(actual == desired)


def test_not_a_number_and_signed_zero_pass_unchanged(implementation):
    bits = np.array([0x7FC00001, 0x80000000, 0xFFC01234, 0x00000001], np.uint32)
    x = np.resize(bits, (1, 2, 2, 9)).view(np.float32)
    y = psa_mask(x, implementation=implementation)
    np.testing.assert_array_equal(y.numpy().view(np.uint32)[0, 0, 0], x.view(np.uint32)[0, 0, 0, 4])
    assert set(y.numpy().view(np.uint32).ravel()) <= set(bits)


def test_empty_batch(implementation):
    y, gx = forward_and_gradient(tf.zeros([0, 3, 4, 35]), tf.zeros([0, 12, 12]), (5, 7), implementation)
    assert y.shape == (0, 12, 12)
    assert gx.shape == (0, 3, 4, 35)


def test_default_mask_covers_every_offset():
    x = tf.random.stateless_normal([1, 3, 4, 35], seed=[1, 2])
    np.testing.assert_array_equal(psa_mask(x), psa_mask(x, (5, 7)))
    assert psa_mask(x).shape == (1, 12, 12)


def test_static_shape_in_a_graph(implementation):
    shapes = []

    def function(x, mask_size=None):
        shapes.append(psa_mask(x, mask_size, implementation).shape.as_list())

    tf.function(function).get_concrete_function(tf.TensorSpec([None, 3, 4, 35]))
    tf.function(function).get_concrete_function(tf.TensorSpec([2, None, 4, 35]), (5, 7))
    assert shapes == [[None, 12, 12], [2, None, None]]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradient_of_the_gradient_is_the_gather(implementation, jit_compile):
    x = tf.random.stateless_normal([1, 3, 2, 15], seed=[1, 2])
    v = tf.random.stateless_normal([1, 6, 6], seed=[3, 4])
    seed = tf.random.stateless_normal(x.shape, seed=[5, 6])
    form = in_xla(implementation) if jit_compile else implementation

    @tf.function(jit_compile=jit_compile)
    def gradient_of_gradient(x, v, seed):
        with tf.GradientTape() as outer:
            outer.watch(v)
            _, gx = forward_and_gradient(x, v, (5, 3), form)
        return outer.gradient(gx, v, seed)

    expected, _ = gather_by_loop(seed.numpy(), (5, 3))
    np.testing.assert_array_equal(gradient_of_gradient(x, v, seed), expected)


def test_gradient_outside_of_the_function_that_xla_compiles(implementation):
    x = tf.random.stateless_normal([2, 3, 4, 35], seed=[1, 2])
    gy = tf.random.stateless_normal([2, 12, 12], seed=[3, 4])
    function = tf.function(lambda x: psa_mask(x, implementation=in_xla(implementation)), jit_compile=True)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    _, gradient = gather_by_loop(x.numpy(), (5, 7))
    np.testing.assert_array_equal(tape.gradient(y, x, gy), gradient(gy.numpy()))


def ops_of(function, *specs):
    """Types of the operations of a function's graph, and of the functions that it calls."""
    graph = tf.function(function).get_concrete_function(*specs).graph
    definition = graph.as_graph_def()
    called = [node for function in definition.library.function for node in function.node_def]
    return {node.op for node in [*definition.node, *called]}


def test_implementation_is_what_the_context_says(op):
    spec = tf.TensorSpec([1, 3, 3, 25])
    assert "PsaMask" in ops_of(psa_mask, spec)
    assert "PsaMask" not in ops_of(lambda x: psa_mask(x, implementation="stock"), spec)
    with psa_mask_implementation("stock"):
        assert "PsaMask" not in ops_of(lambda x: psa_mask(x, implementation="custom"), spec)
        with psa_mask_implementation("custom"):
            assert "PsaMask" in ops_of(lambda x: psa_mask(x, implementation="stock"), spec)
        assert "PsaMask" not in ops_of(psa_mask, spec)
    assert "PsaMask" in ops_of(psa_mask, spec)


def test_context_ends_with_an_error_too():
    with pytest.raises(KeyError):
        with psa_mask_implementation("stock"):
            raise KeyError
    with pytest.raises(ValueError, match=r"must be one of \('auto', 'custom', 'stock'\), got 'gpu'"):
        with psa_mask_implementation("gpu"):
            pass
    with pytest.raises(ValueError, match="got 'cuda'"):
        psa_mask(tf.zeros([1, 1, 1, 1]), implementation="cuda")


def test_auto_uses_stock_ops_inside_xla_without_a_word(op, caplog):
    def in_a_loop(x):
        inner = tf.function(psa_mask)
        return tf.while_loop(lambda i, _: i < 1, lambda i, _: (i + 1, inner(x)), [0, tf.zeros([1, 9, 9])])[1]

    for function in (psa_mask, in_a_loop):
        spec = tf.TensorSpec([1, 3, 3, 25])
        assert "PsaMask" in ops_of(function, spec)
        assert "PsaMask" not in ops_of(tf.function(function, jit_compile=True), spec)
    assert "stock" not in caplog.text


def test_custom_inside_xla_is_an_error_that_says_what_to_do(op):
    function = tf.function(lambda x: psa_mask(x, implementation="custom"), jit_compile=True, autograph=False)
    with pytest.raises(OpUnavailableError, match='XLA cannot compile the op: implementation="auto" uses stock ops'):
        function(tf.zeros([1, 3, 3, 25]))


@pytest.mark.parametrize(
    ("shape", "dtype", "mask_size", "message"),
    [
        ([1, 3, 3], "float32", (3, 3), "must be .N, H, W, mask_h"),
        ([1, 3, 3, 9], "int32", (3, 3), "got int32"),
        ([1, 3, 3, 9], "float32", (3, 4), "has 9 channels.*3 . 4 = 12"),
        ([1, 3, 3, 9], "float32", (-3, -3), "mask_size must be positive, got .-3, -3.: the smallest is .1, 1."),
        ([1, 3, 3, 0], "float32", (0, 3), "mask_size must be positive, got .0, 3."),
        ([1, 3, 3, 10], "float32", (3, 3), "has 10 channels.*3 . 3 = 9"),
        ([1, 3, 3, 9], "float32", None, "has 9 channels.*5 . 5 = 25"),
        ([1, 3, 3, 9], "float32", 3, "two positive integers"),
        ([1, 2, 2, 25], "float32", (5.7, 5), r"two positive integers \(mask_h, mask_w\), got \(5.7, 5\)"),
        ([1, 2, 2, 25], "float32", (5.0, 5), r"two positive integers \(mask_h, mask_w\), got \(5.0, 5\)"),
    ],
)
def test_wrong_arguments_are_named(shape, dtype, mask_size, message):
    with pytest.raises(ValueError, match=message):
        psa_mask(tf.zeros(shape, dtype), mask_size)


def test_dynamic_size_needs_a_mask_size():
    function = tf.function(psa_mask, [tf.TensorSpec([None, None, None, 9])])
    with pytest.raises(ValueError, match="mask_size is needed where H and W are dynamic"):
        function(tf.zeros([1, 2, 2, 9]))
