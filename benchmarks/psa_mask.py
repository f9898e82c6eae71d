"""Times psa_mask's compiled op against stock TensorFlow ops and against a plain copy of the same bytes, on the CPU.

    python benchmarks/psa_mask.py            # a Markdown table on standard output, a few minutes

Every number is a median. What is compared is timed in turns, so that a slow moment of the machine hits all of it: the
op with memcpy, and stock ops without and within XLA.
"""

import argparse
import ctypes
import datetime
import os
import platform
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from psanet_tf.ops import op_library, psa_mask
from psanet_tf.progress import track

# (N, H, W); the mask covers every offset, (2 H - 1) x (2 W - 1). 30 x 30 is a crop of 465, 45 x 45 one of 705.
SIZES = ((2, 30, 30), (2, 45, 45), (2, 33, 65), (1, 60, 60))
DTYPES = ("float32", "bfloat16", "float64")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15, help="timings of each number (default: 15)")
    repetitions = parser.parse_args().repetitions
    library = op_library.load_op_library()
    cases = [(*size, dtype) for dtype in DTYPES for size in SIZES]
    rows = [row for case in track(cases, "psa_mask") for row in _time_case(*case, repetitions)]
    print(
        f"{datetime.date.today()}, {_processor()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, "
        f"{library.stamp['compiler']}, `python benchmarks/psa_mask.py`\n"
    )
    print(
        "| N x H x W | dtype | direction | op ms | stock ms | stock in XLA ms | memcpy ms | stock / op | op / memcpy |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(row)


def _time_case(n, h, w, dtype, repetitions):
    mask_size = (2 * h - 1, 2 * w - 1)
    mask = tf.cast(tf.random.stateless_normal([n, h, w, mask_size[0] * mask_size[1]], [1, 2]), dtype)
    cotangent = tf.cast(tf.random.stateless_normal([n, h * w, h * w], [3, 4]), dtype)

    def forward(implementation):
        return lambda: psa_mask(mask, mask_size, implementation)

    def gradient(implementation):
        def run():
            # The forward pass is not needed for a linear function's gradient: the graph's optimizer drops it.
            with tf.GradientTape() as tape:
                tape.watch(mask)
                attention = psa_mask(mask, mask_size, implementation)
            return tape.gradient(attention, mask, cotangent)

        return run

    for direction, make, output in (("forward", forward, cotangent), ("gradient", gradient, mask)):
        op, copy = _medians([tf.function(make("custom")), _memcpy(output)], 3 * repetitions)
        stock_functions = [tf.function(make("stock"), jit_compile=jit_compile) for jit_compile in (False, True)]
        stock, in_xla = _medians(stock_functions, repetitions)
        yield (
            f"| {n} x {h} x {w} | {dtype} | {direction} | {op:.2f} | {stock:.1f} | {in_xla:.1f} | {copy:.2f} "
            f"| {stock / op:.1f} | {op / copy:.2f} |"
        )


def _memcpy(tensor):
    """Copies as many bytes as `tensor` has from one buffer to another, on one core."""
    size = tensor.shape.num_elements() * tensor.dtype.size
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return lambda: ctypes.memmove(target.ctypes.data, source.ctypes.data, size)


def _medians(functions, repetitions):
    """Milliseconds of each function; the first two calls (tracing, compiling) do not count."""
    for function in functions:
        function()
        function()
    times = np.empty([repetitions, len(functions)])
    for repetition in range(repetitions):
        for column, function in enumerate(functions):
            start = time.perf_counter()
            function()
            times[repetition, column] = time.perf_counter() - start
    return np.median(times, axis=0) * 1e3


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
