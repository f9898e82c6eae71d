"""Times of `psa_mask` on a device: the op, stock ops without and within XLA, and a copy of the same bytes."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from psanet_tf.ops.op_library import load_op_library
from psanet_tf.ops.psa_mask_stock import psa_mask_stock
from psanet_tf.progress import track

# (N, H, W) by kind of device; the mask covers every offset, (2 H - 1) x (2 W - 1). 30 x 30 is the shrunk map of a crop
# of 465, 45 x 45 that of 705, 60 x 60 that of 945.
SIZES = {
    "CPU": ((2, 30, 30), (2, 45, 45), (1, 60, 60)),
    "GPU": ((8, 30, 30), (8, 45, 45), (8, 64, 128)),
}
DTYPES = ("float32", "bfloat16")
REPETITIONS = 9  # timings of each number; three times as many of the fast ones

TABLE_HEADER = (
    "| device | N x H x W | dtype | direction | op ms | stock ms | stock in XLA ms | copy ms | stock / op "
    "| op / copy | op GB/s |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def table_rows(device: str, with_op: bool) -> Iterator[str]:
    """Measures and yields the rows under `TABLE_HEADER`, in Markdown. Every number is a median.

    What is compared is timed in turns, so that a slow moment of the machine hits all of it. The copy reads and writes
    as many bytes as the op does: forward reads and writes the attention's size, the gradient reads that and writes the
    mask's.

    Args:
        device: name of a logical device, e.g. "GPU:0".
        with_op: whether the op can be used on it.
    """
    kind = device.partition(":")[0]
    cases = [(size, dtype) for dtype in DTYPES for size in SIZES[kind]]
    # Calls of a GPU are queued: several at once, or the time of a call would be measured.
    calls = 20 if kind == "GPU" else 1
    for (n, h, w), dtype in track(cases, f"psa_mask on {device}"):
        first = f"| {device} | {n} x {h} x {w} | {dtype} |"
        try:
            with tf.device(device):
                rows = list(_time_size(n, h, w, dtype, with_op, calls))
        except tf.errors.ResourceExhaustedError:
            rows = [" - | does not fit | | | | | | |"]
        yield from (first + row for row in rows)


def _time_size(n, h, w, dtype, with_op, calls):
    mask_size = (2 * h - 1, 2 * w - 1)
    mask = tf.cast(tf.random.stateless_uniform([n, h, w, mask_size[0] * mask_size[1]], [1, 2]), dtype)
    attention = tf.cast(tf.random.stateless_uniform([n, h * w, h * w], [3, 4]), dtype)
    forms = {"forward": _stock_forward, "gradient": _stock_gradient}
    for direction, written in (("forward", attention), ("gradient", mask)):
        moved = _bytes(attention) + _bytes(written)
        copied = tf.zeros([moved // 8], tf.float32)
        fast = [_bound(_copy, copied)]
        if with_op:
            fast.append(_op_call(direction, mask, attention, mask_size))
        copy_ms, *op_ms = _medians(fast, calls, 3 * REPETITIONS)
        del copied, fast
        stock = [tf.function(forms[direction], jit_compile=jit, autograph=False) for jit in (False, True)]
        try:
            stock_ms = _medians(
                [_bound(function, mask, attention, mask_size) for function in stock], calls, REPETITIONS
            )
        except tf.errors.ResourceExhaustedError:
            stock_ms = []  # it takes several times the op's memory
        yield _row(direction, moved, copy_ms, op_ms, stock_ms)


def _row(direction, moved, copy_ms, op_ms, stock_ms):
    cells = [f"{op_ms[0]:.3f}" if op_ms else "-"]
    cells += [f"{milliseconds:.2f}" for milliseconds in stock_ms] or ["does not fit", "does not fit"]
    cells.append(f"{copy_ms:.3f}")
    cells.append(f"{stock_ms[0] / op_ms[0]:.1f}" if op_ms and stock_ms else "-")
    cells += [f"{op_ms[0] / copy_ms:.2f}", f"{moved / op_ms[0] / 1e6:.1f}"] if op_ms else ["-", "-"]
    return f" {direction} | {' | '.join(cells)} |"


def _op_call(direction, mask, attention, mask_size):
    ops = load_op_library().ops
    sizes = {"mask_height": mask_size[0], "mask_width": mask_size[1]}
    if direction == "forward":
        return lambda: ops.psa_mask(mask=mask, **sizes)
    with tf.device("CPU:0"):  # where the kernel for GPUs reads it, too
        mask_shape = tf.constant(mask.shape.as_list())
    return lambda: ops.psa_mask_grad(gradient=attention, mask_shape=mask_shape, **sizes)


def _stock_forward(mask, attention, mask_size):
    return psa_mask_stock(mask, mask_size)


def _stock_gradient(mask, attention, mask_size):
    # The forward pass is not needed for a linear function's gradient: the graph's optimizer drops it.
    with tf.GradientTape() as tape:
        tape.watch(mask)
        found = psa_mask_stock(mask, mask_size)
    return tape.gradient(found, mask, attention)


def _copy(tensor):
    return tf.raw_ops.DeepCopy(x=tensor)


def _bound(function, *arguments):
    return lambda: function(*arguments)


def _bytes(tensor):
    return tensor.shape.num_elements() * tensor.dtype.size


def _medians(functions: list[Callable[[], tf.Tensor]], calls: int, repetitions: int) -> list[float]:
    """Milliseconds of one call of each function; the first two calls (tracing, compiling) do not count."""
    for function in functions:
        function()
        function()
    times = np.empty([repetitions, len(functions)])
    for repetition in range(repetitions):
        for column, function in enumerate(functions):
            tf.test.experimental.sync_devices()
            start = time.perf_counter()
            for _ in range(calls):
                function()
            tf.test.experimental.sync_devices()
            times[repetition, column] = (time.perf_counter() - start) / calls
    return list(np.median(times, axis=0) * 1e3)
