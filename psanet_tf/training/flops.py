"""How much arithmetic a training step is, and how much the machine can do."""

import dataclasses
import math
import time

import tensorflow as tf

from psanet_tf.feature_sizes import shrunk_size
from psanet_tf.layers import PSALayer
from psanet_tf.models import PSANet
from psanet_tf.ops.psa_attention import resolved_block_size
from psanet_tf.training.memory import layer_outputs

# Rows of the matrices, and how many products in turn: enough that starting them takes no time.
_ON_GPU, _ON_CPU = (4096, 16), (1024, 2)
_TRIALS = 3


def training_flops(model: PSANet) -> int:
    """Floating-point operations (multiplications and additions) of one image in a training step.

    Those of convolutions, dense layers and the attention, once forward and twice for the gradient, as in the "model
    FLOPs utilization" of Chowdhery et al., "PaLM", 2022, appendix B: what is computed again to save memory does not
    count. Of frozen layers the forward pass counts.

    Args:
        model: PSANet of a fixed input size.
    """
    return sum(
        (3 if getattr(layer, "trainable", False) else 1) * _forward_flops(layer, output)
        for layer, output in layer_outputs(model)
    )


def _forward_flops(layer, output):
    if isinstance(layer, PSALayer):
        return _attention_flops(layer)
    kernels = [getattr(layer, name, None) for name in ("kernel", "depthwise_kernel", "pointwise_kernel")]
    positions = math.prod(output.shape[1:-1])
    return sum(2 * positions * math.prod(kernel.shape) for kernel in kernels if kernel is not None)


def _attention_flops(layer):
    _, height, width, _ = layer.input.shape
    size = shrunk_size((height, width), layer.shrink_factor, layer.variant)
    positions, shrunk = height * width, math.prod(size)
    projected = (size[0] + 2) * (size[1] + 2) if layer.variant == "mmseg" else shrunk
    products = projected * math.prod(layer.proj_conv.kernel.shape)
    for direction in layer.directions:
        branch = getattr(layer, direction)
        in_blocks = (
            not layer.compact and resolved_block_size(layer.block_size, size, branch.mask_size) is not None
        )  # where the mask is made of no more offsets than there are pairs of positions
        offsets = shrunk if in_blocks else branch.mask_conv.filters
        products += positions * math.prod(branch.reduce_conv.kernel.shape)
        products += shrunk * math.prod(branch.attention_conv.kernel.shape)
        products += shrunk * layer.mid_channels * (offsets + shrunk)
    return 2 * products


@dataclasses.dataclass(frozen=True)
class Peak:
    """What a machine can do.

    Attributes:
        flops: floating-point operations per second.
        origin: where the number is from, in words.
    """

    flops: float
    origin: str


def measure_peak(dtype: str, devices: int = 1) -> Peak | None:
    """Multiplies matrices on one device, the best of a few times.

    Args:
        dtype: what the network computes in: "float32", "bfloat16" or "float16".
        devices: how many such devices there are.

    Returns:
        Peak; None where the device has no room for the matrices.
    """
    gpus = tf.config.list_logical_devices("GPU")
    size, products = _ON_GPU if gpus else _ON_CPU
    try:
        with tf.device(gpus[0].name if gpus else "CPU:0"):
            start = tf.cast(tf.random.stateless_normal([size, size], [0, 0]), dtype)
            # Its scale keeps the products' numbers in their range.
            factor = tf.cast(tf.random.stateless_normal([size, size], [0, 1]) / math.sqrt(size), dtype)
            seconds = [_time_products(start, factor, products) for _ in range(_TRIALS + 1)][1:]
    except tf.errors.ResourceExhaustedError:
        return None
    flops = devices * products * 2 * size**3 / min(seconds)
    kind = "GPU" if gpus else "CPU"
    where = f"one {kind}" if devices == 1 else f"one of {devices} {kind}s"
    return Peak(flops, f"measured by products of {size} x {size} matrices in {dtype} on {where}")


def _time_products(product, factor, count):
    begin = time.monotonic()
    for _ in range(count):
        product = tf.matmul(product, factor)
    float(product[0, 0])  # waits
    return time.monotonic() - begin
