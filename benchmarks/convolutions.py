"""Every kind of convolution of PSANet-50 on a CPU: time and speed as TensorFlow's op and as matrix products.

    python benchmarks/convolutions.py                                 # forward, batch 1, crop 465, float32
    python benchmarks/convolutions.py --gradients --dtype bfloat16
    ONEDNN_VERBOSE=1 python benchmarks/convolutions.py | grep exec    # layouts (wei:...) and kernels that oneDNN takes

Both forms are timed in turns. Products are `psanet_tf.ops.convolution.sum_of_products` for a 3x3 kernel and one matrix
product for a 1x1 kernel. GFLOP/s tell how far a convolution is from what the processor gives: compare them within the
table. CPU seconds, over all cores, depend less on what else the machine does than the time that passes.
"""

import argparse
import datetime
import os
import time
from collections import Counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from machine import processor

from psanet_tf import PSANet
from psanet_tf.feature_sizes import shrunk_size
from psanet_tf.keras_api import keras
from psanet_tf.layers import PSALayer
from psanet_tf.ops.convolution import products_serve, sum_of_products


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crop", type=int, default=465, help="8n + 1")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--gradients", action="store_true", help="of input and kernel, in place of the forward pass")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    print(
        f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, "
        f"{arguments.dtype}, batch {arguments.batch}, {'gradients' if arguments.gradients else 'forward'}, "
        f"load average {os.getloadavg()[0]:.1f}\n"
    )
    tf.get_logger().setLevel("ERROR")  # every kind is a function of its own
    print("| convolution | how many | stock ms | GFLOP/s | stock CPU ms | products CPU ms | stock / products | used |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    rows = [(count, *_time_kind(kind, arguments)) for kind, count in _convolutions(arguments.crop).items()]
    for count, kind, *numbers in sorted(rows, key=lambda row: -row[0] * row[2]):
        print(_in_table(count, kind, *numbers))


def _convolutions(crop):
    """{(rows and columns of the input, kernel, channels, filters, stride, dilation): how many}"""
    model = PSANet(150, input_shape=(crop, crop, 3))
    kinds = Counter()
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kinds[_kind(layer, layer.input.shape[1])] += 1
        if isinstance(layer, PSALayer):
            shrunk = shrunk_size(layer.input.shape[1:3], layer.shrink_factor, layer.variant)[0]
            branches = [layer.collect, layer.distribute]
            for inner in [layer.proj_conv, *(conv for branch in branches for conv in _convs(branch))]:
                kinds[_kind(inner, shrunk)] += 1
    return kinds


def _convs(branch):
    return branch.reduce_conv, branch.attention_conv, branch.mask_conv


def _kind(layer, size):
    return (size, *map(int, layer.kernel.shape[1:]), layer.strides[0], layer.dilation_rate[0])


def _time_kind(kind, arguments):
    """(kind, ms of the stock form, GFLOP/s, CPU ms of it, CPU ms of products or None, whether layers use products)."""
    size, width, channels, filters, stride, dilation = kind
    generator = np.random.default_rng(0)
    padding = "SAME" if stride == 1 else "VALID"

    def constant(*shape):
        return tf.cast(generator.standard_normal(shape, np.float32), arguments.dtype)

    images, kernel = constant(arguments.batch, size, size, channels), constant(width, width, channels, filters)

    def stock(images, kernel):
        # As Keras's layers have it: where TensorFlow has no dilated kernels, by way of space-to-batch.
        return tf.nn.convolution(images, kernel, stride, padding, dilations=dilation)

    def products(images, kernel):
        if width == 1:
            outputs = tf.matmul(tf.reshape(images, [-1, channels]), kernel[0, 0])
            return tf.reshape(outputs, [arguments.batch, size, size, filters])
        return sum_of_products(images, kernel)

    forms = [stock, products] if stride == 1 and dilation == 1 and width in (1, 3) else [stock]
    shape = stock(images, kernel).shape
    upstream = constant(*shape)
    calls = [_call(form, images, kernel, upstream, arguments.gradients) for form in forms]
    times = [_turn(calls) for _ in range(arguments.repetitions + 1)][1:]
    seconds, cpu_seconds = np.median(np.array(times), axis=0)
    flops = 2 * width**2 * channels * shape.num_elements() * (2 if arguments.gradients else 1)
    used = len(forms) > 1 and products_serve(images, kernel.shape)
    by_products = 1e3 * cpu_seconds[1] if len(forms) > 1 else None
    return kind, 1e3 * seconds[0], flops / seconds[0] / 1e9, 1e3 * cpu_seconds[0], by_products, used


def _call(form, images, kernel, upstream, gradients):
    kernel = tf.Variable(kernel)
    if not gradients:
        return tf.function(lambda: form(images, kernel.read_value()))

    @tf.function
    def differentiate():
        with tf.GradientTape() as tape:
            value = kernel.read_value()
            tape.watch([images, value])
            outputs = form(images, value)
        return tape.gradient(outputs, [images, value], upstream)

    return differentiate


def _turn(calls):
    """[seconds of each, CPU seconds of each]"""
    seconds, cpu_seconds = [], []
    for call in calls:
        start, cpu_start = time.perf_counter(), time.process_time()
        call()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return seconds, cpu_seconds


def _in_table(count, kind, milliseconds, speed, cpu, by_products, used):
    size, width, channels, filters, stride, dilation = kind
    step = "".join([f", stride {stride}" * (stride > 1), f", dilation {dilation}" * (dilation > 1)])
    title = f"{width}x{width}{step}, {channels} to {filters}, at {size} x {size}"
    columns = ("", "") if by_products is None else (f"{by_products:.1f}", f"{cpu / by_products:.2f}")
    return (
        f"| {title} | {count} | {milliseconds:.1f} | {speed:.0f} | {cpu:.1f} | {' | '.join(columns)} "
        f"| {'products' if used else 'stock'} |"
    )


if __name__ == "__main__":
    main()
