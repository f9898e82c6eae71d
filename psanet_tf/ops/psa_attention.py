"""`psa_attention`: from predictors to attended features, through the whole matrix or block by block."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import tensorflow as tf

from psanet_tf.ops.portable import traced_portably
from psanet_tf.ops.position_blocks import Length
from psanet_tf.ops.psa_attention_blocks import attend_in_blocks, fit_kernel
from psanet_tf.ops.psa_mask import DTYPES, chosen_implementation, psa_mask

DIRECTIONS = ("collect", "distribute")

BlockSize = Literal["auto"] | int | tuple[int, int] | None

# "auto" takes blocks from this many bytes of a mask in float32 on; docs/benchmarks/attention.md has the measurements.
# On a GPU blocks are many small kernels one after the other, and only save memory.
AUTO_MASK_BYTES = {"cpu": 32 * 2**20, "gpu": 512 * 2**20}
AUTO_BLOCK_SIZE = (16, 16)

_device = None  # what `auto_blocks_for` says
_seen = None  # where `seen_attention` wants the matrices


def psa_attention(
    features: tf.Tensor,
    predictors: tf.Tensor,
    kernel: tf.Tensor,
    direction: str = "collect",
    softmax: bool = True,
    block_size: BlockSize = "auto",
    implementation: str = "auto",
) -> tf.Tensor:
    """Point-wise spatial attention (paper, section 3.2): every position is a weighted sum over all of them.

    With p a position that predicts, q any position, g the predictors, K the kernel and half = (size - 1) // 2 of it::

        logit[p, q] = sum over c of g[p, c] * K[c, q - p + half]        on the mask, else 0
        collect:    z[i] = sum over j of softmax over j of (logit[i, j]) * f[j]
        distribute: z[i] = sum over j of softmax over j of (logit[j, i]) * f[j]

    As a whole, this makes the over-complete mask (a 1x1 convolution), cuts the window out of it (`psa_mask`) and
    multiplies with the matrix: at 64 x 128 positions 1.06 GB and 0.27 GB per image. In blocks of positions neither is
    ever in memory, in either pass: a block's logits are one product of its predictors with the part of the kernel
    for the offsets between the block and the map. Both give the same numbers up to rounding.

    Args:
        features: [N, H, W, C], float16, bfloat16, float32 or float64; N, H and W may be dynamic.
        predictors: [N, H, W, P], the same dtype.
        kernel: [P, mask_h, mask_w] with any mask size, smaller or larger than the window 2 * H - 1 x 2 * W - 1; cast
            to the dtype of `features`.
        direction: "collect" or "distribute".
        softmax: False takes the logits themselves as weights.
        block_size: positions that are looked at together: (rows, columns), or rows as wide as the map; None for the
            whole map at once, which it always is within `portable_operations`. "auto" is None where the mask of an
            image has at most 8.4 million entries (32 MiB in float32; 30 x 30 positions have 3.1 million, 45 x 45 16
            million), where a GPU is visible 134 million (512 MiB; 60 x 60 have 51 million, 64 x 128 265 million), and
            (16, 16) for larger ones and where the map's size is dynamic; but always None with the implementation
            "custom".
        implementation: of the window gather, see `psa_mask`; blocks consist of stock TensorFlow ops.

    Returns:
        [N, H, W, C], the dtype of `features`. Differentiable; in blocks, the gradient is made block by block too, and
        once only (no second derivatives).

    Raises:
        ValueError: a tensor of another rank or dtype, shapes that do not go together, another `direction`, a block
            size that is not positive.

    Example:
        >>> features = tf.random.normal([1, 64, 128, 512])
        >>> kernel = tf.random.normal([512, 127, 255], stddev=0.01)
        >>> psa_attention(features, tf.nn.relu(features), kernel, block_size=(16, 16)).shape
        TensorShape([1, 64, 128, 512])
    """
    features, predictors = tf.convert_to_tensor(features), tf.convert_to_tensor(predictors)
    kernel = tf.cast(tf.convert_to_tensor(kernel), features.dtype)
    _check(features, predictors, kernel, direction)
    if traced_portably() or (block_size == "auto" and chosen_implementation(implementation) == "custom"):
        block_size = None  # no loops there; here the op was asked for, and blocks have no use for it
    blocks = resolved_block_size(block_size, features.shape[1:3], kernel.shape[1:])
    if blocks is not None:
        outputs = attend_in_blocks(
            features, predictors, fit_kernel(kernel, size_of(features)), direction, softmax, blocks
        )
        outputs.set_shape(features.shape)
        return outputs
    mask_h, mask_w = kernel.shape[1:]
    mask = tf.nn.conv2d(predictors, tf.reshape(kernel, [1, 1, kernel.shape[0], mask_h * mask_w]), 1, "VALID")
    weights = attention_matrix(psa_mask(mask, (mask_h, mask_w), implementation), direction, softmax)
    return apply_attention(weights, features, direction)


def attention_matrix(logits: tf.Tensor, direction: str, softmax: bool = True) -> tf.Tensor:
    """The weights with which destinations gather sources.

    Args:
        logits: [N, H * W, H * W], rows for the positions that predict.
        direction: "collect" or "distribute".
        softmax: over the sources of each destination; computed in float32 at least.

    Returns:
        [N, H * W, H * W], rows for the destinations and columns for the sources, the dtype of `logits`.
    """
    if direction == "distribute":
        # Sources predicted their weight at every destination: bring the destinations to the rows.
        logits = tf.transpose(logits, [0, 2, 1])
    if not softmax:
        return logits
    wide = logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)
    return tf.cast(tf.nn.softmax(wide), logits.dtype)


def apply_attention(weights: tf.Tensor, features: tf.Tensor, direction: str) -> tf.Tensor:
    """[N, H, W, C]: the sums of `features` [N, H, W, C] with `weights` [N, H * W, H * W], see `attention_matrix`."""
    n, (h, w), channels = tf.shape(features)[0], size_of(features), features.shape[3]
    if _seen is not None:
        _seen[direction] = tf.reshape(weights, tf.stack([n, h, w, h, w]))
    z = tf.matmul(weights, tf.reshape(features, tf.stack([n, h * w, channels])))
    return tf.reshape(z, tf.shape(features))


def size_of(features: tf.Tensor) -> list[Length]:
    """[H, W] of [N, H, W, C], integers where they are static and scalar tensors where not."""
    dynamic = tf.shape(features)
    return [dynamic[axis] if features.shape[axis] is None else features.shape[axis] for axis in (1, 2)]


def resolved_block_size(
    block_size: BlockSize, size: Sequence[int | None], mask_size: Sequence[int]
) -> tuple[int, int] | None:
    """(rows, columns) of the blocks, or None where the map is taken as a whole.

    Args:
        block_size: see `psa_attention`.
        size: H and W, None where they are dynamic.
        mask_size: rows and columns of the mask.

    Raises:
        ValueError: no such block size.
    """
    if block_size is None:
        return None
    if block_size == "auto":
        h, w = size
        largest = AUTO_MASK_BYTES[_device or ("gpu" if tf.config.get_visible_devices("GPU") else "cpu")]
        if h is not None and w is not None and 4 * h * w * mask_size[0] * mask_size[1] <= largest:
            return None
        return AUTO_BLOCK_SIZE
    rows, columns = block_size if isinstance(block_size, (tuple, list)) else (block_size, 2**30)
    if min(rows, columns) < 1:
        raise ValueError(f"block_size must be positive, got {block_size!r}: the smallest is (1, 1)")
    return rows, columns


@contextlib.contextmanager
def auto_blocks_for(device: Literal["cpu", "gpu"]) -> Iterator[None]:
    """Within, "auto" takes blocks where they serve on this device; in a `tf.function`, if it is traced within.

    Without, that goes by whether TensorFlow sees a GPU here.
    """
    global _device
    before, _device = _device, device
    try:
        yield
    finally:
        _device = before


@contextlib.contextmanager
def seen_attention() -> Iterator[dict[str, tf.Tensor]]:
    """Within, every attention that is taken as a whole leaves the matrix that it uses in the dictionary.

    Yields:
        direction -> [N, H, W, H, W] of the latest one: rows and columns of the destination, then of the source.
    """
    global _seen
    before, _seen = _seen, {}
    try:
        yield _seen
    finally:
        _seen = before


def _check(features, predictors, kernel, direction):
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {DIRECTIONS}, got {direction!r}")
    if features.dtype not in DTYPES:
        raise ValueError(f"features must be one of {[dtype.name for dtype in DTYPES]}, got {features.dtype.name}")
    if predictors.dtype != features.dtype:
        raise ValueError(
            f"predictors must have the dtype of features, {features.dtype.name}, got {predictors.dtype.name}"
        )
    for name, tensor in (("features", features), ("predictors", predictors)):
        if tensor.shape.rank != 4 or tensor.shape[3] is None:
            raise ValueError(f"{name} must be [N, H, W, channels] with static channels, got shape {tensor.shape}")
    if not predictors.shape[:3].is_compatible_with(features.shape[:3]):
        raise ValueError(f"predictors must be of the size of features, {features.shape}, got shape {predictors.shape}")
    if kernel.shape.rank != 3 or not kernel.shape.is_fully_defined() or kernel.shape[0] != predictors.shape[3]:
        raise ValueError(
            f"kernel must be [{predictors.shape[3]}, mask_h, mask_w], one row for each channel of the predictors, "
            f"got shape {kernel.shape}"
        )
