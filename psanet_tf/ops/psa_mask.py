"""`psa_mask`: from over-complete masks to attention matrices."""

import contextlib
import functools
import logging
import operator
from collections.abc import Iterator, Sequence

import tensorflow as tf

from psanet_tf.ops.compiling import traced_for_xla
from psanet_tf.ops.exporting import forbid_export, traced_for_export
from psanet_tf.ops.op_library import OpUnavailableError, load_op_library
from psanet_tf.ops.psa_mask_custom import psa_mask_custom
from psanet_tf.ops.psa_mask_stock import psa_mask_stock

logger = logging.getLogger(__name__)

IMPLEMENTATIONS = ("auto", "custom", "stock")
DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)


_override = None  # set by `psa_mask_implementation`


# AutoGraph would rewrite, and warn about, everything that finds and builds the library.
@tf.autograph.experimental.do_not_convert
def psa_mask(mask: tf.Tensor, mask_size: tuple[int, int] | None = None, implementation: str = "auto") -> tf.Tensor:
    """Cuts, for every position, the window that falls on the feature map out of its over-complete mask.

    With p = (h, w) the position that predicted and q = (k, l) any position, and half = (size - 1) // 2::

        out[n, p, q] = mask[n, h, w, (k - h + half_h) * mask_w + (l - w + half_w)]   on the mask, else 0

    One gather serves both directions of the paper (section 3.2): for collect, p is the destination and q
    the source; for distribute, p is the source and q the destination. Differentiable. An even mask reaches one step
    farther down and to the right than up and to the left (66: offsets -32 to 33), as MMSegmentation's networks have it.

    Args:
        mask: [N, H, W, mask_h * mask_w], float16, bfloat16, float32 or float64; N, H and W may be dynamic.
        mask_size: (mask_h, mask_w), odd or even; may be smaller or larger than the window. Default:
            (2 * H - 1, 2 * W - 1), which needs H and W to be static.
        implementation: "custom" is the compiled op (built at the first call, half a minute, if the installation
            has not built it), "stock" a form in TensorFlow's own ops, with the same results bit for bit. "auto" is
            "custom" wherever that can be used, else "stock" and one logged line that says why; and "stock" in
            functions that XLA compiles (``jit_compile=True``), which knows TensorFlow's own ops alone, and that an
            export traces (`model.export`, `tf.saved_model.save`, TFLiteConverter), since what reads the file seldom
            has the op. Within `psa_mask_implementation` that one's choice counts.

    Returns:
        [N, H * W, H * W], the dtype of `mask`.

    Raises:
        ValueError: `mask` has another rank, dtype or number of channels; a mask size is not positive; another
            `implementation`.
        OpUnavailableError: `implementation` is "custom" and the op cannot be used, or not on the GPU where `mask` is
            (within ``tf.device("CPU:0")`` it can), or not in a function that XLA compiles; a RuntimeError that says
            why.

    Example:
        >>> mask = tf.random.normal([2, 30, 30, 59 * 59])
        >>> psa_mask(mask).shape
        TensorShape([2, 900, 900])
    """
    mask = tf.convert_to_tensor(mask)
    if mask.dtype not in DTYPES:
        raise ValueError(f"mask must be one of {[dtype.name for dtype in DTYPES]}, got {mask.dtype.name}")
    if mask.shape.rank != 4:
        raise ValueError(f"mask must be [N, H, W, mask_h * mask_w], got shape {mask.shape}")
    mask_size = checked_mask_size(mask_size, mask.shape)
    implementation = chosen_implementation(implementation)
    if implementation == "custom":
        return _custom_without_detour(mask, mask_size)
    if implementation == "auto" and _custom_op_serves():
        forbid_export()
        return psa_mask_custom(mask, mask_size)
    return psa_mask_stock(mask, mask_size)


def chosen_implementation(implementation: str) -> str:
    """`implementation`, or the one that `psa_mask_implementation` sets in its place.

    Raises:
        ValueError: no such implementation.
    """
    return _checked_implementation(implementation) if _override is None else _override


@contextlib.contextmanager
def psa_mask_implementation(implementation: str) -> Iterator[None]:
    """Makes every `psa_mask` within use one implementation, in layers and models too, whatever they ask for.

    What counts is the time of the call, in a `tf.function` that is the time of tracing. So a model whose graph
    shall hold stock ops only (for a server that has no library of the op) is traced within::

        with psa_mask_implementation("stock"):
            signature = tf.function(model).get_concrete_function(tf.TensorSpec([None, 465, 465, 3]))

    Functions that were traced before keep what they have: make a new `tf.function`. The choice is the process's,
    not the thread's, since distribution strategies trace replicas in threads of their own.

    Args:
        implementation: "auto", "custom" or "stock", as for `psa_mask`.

    Raises:
        ValueError: another `implementation`.
    """
    global _override
    before, _override = _override, _checked_implementation(implementation)
    try:
        yield
    finally:
        _override = before


def reason_for_stock() -> str | None:
    """Why "auto" uses stock ops in this process, or None where it uses the compiled op. Loads the op's library."""
    try:
        return load_op_library().gpu_problem()
    except OpUnavailableError as error:
        return str(error)


def _custom_without_detour(mask, mask_size):
    """The op, but not on the CPU for tensors on a GPU, where TensorFlow would silently copy them there and back."""
    if traced_for_xla():
        raise OpUnavailableError(
            'XLA cannot compile the op: implementation="auto" uses stock ops in functions with jit_compile=True, and '
            "jit_compile=False has the op run"
        )
    attention = psa_mask_custom(mask, mask_size)
    problem = _reason_for_stock()
    if problem and _is_for_gpu(mask, attention):
        raise OpUnavailableError(
            f'{problem}; tf.device("CPU:0") around it, or CUDA_VISIBLE_DEVICES=-1, has it run on the CPU'
        )
    return attention


def _is_for_gpu(mask, attention):
    if tf.executing_eagerly():
        return "GPU" in mask.device
    # A graph knows of devices only what `tf.device` says; without, TensorFlow takes the GPU.
    return bool(tf.config.get_visible_devices("GPU")) and "CPU" not in attention.device


def _custom_op_serves():
    if traced_for_export() or traced_for_xla():
        return False
    reason = _reason_for_stock()
    if reason:
        _say_once(reason)
    return reason is None


@functools.cache
def _reason_for_stock():
    return reason_for_stock()


@functools.cache
def _say_once(reason):
    logger.warning("psa_mask uses stock TensorFlow ops: %s", reason)


def _checked_implementation(implementation):
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {IMPLEMENTATIONS}, got {implementation!r}")
    return implementation


def checked_mask_size(mask_size: Sequence[int] | None, shape: tf.TensorShape) -> tuple[int, int]:
    """(mask_h, mask_w) as integers that fit a mask of static `shape` [N, H, W, channels].

    Raises:
        ValueError: no size and no static H, W to take one from; not positive; not the channels' number.
    """
    _, h, w, channels = shape
    if mask_size is None:
        if h is None or w is None:
            raise ValueError(f"mask_size is needed where H and W are dynamic, got a mask of shape {shape}")
        mask_size = (2 * h - 1, 2 * w - 1)
    try:
        mask_h, mask_w = map(operator.index, mask_size)
    except (TypeError, ValueError):
        raise ValueError(f"mask_size must be two positive integers (mask_h, mask_w), got {mask_size!r}") from None
    if min(mask_h, mask_w) < 1:
        raise ValueError(f"mask_size must be positive, got {(mask_h, mask_w)}: the smallest is (1, 1)")
    if channels is not None and channels != mask_h * mask_w:
        raise ValueError(
            f"mask has {channels} channels, but mask_size {(mask_h, mask_w)} "
            f"needs {mask_h} * {mask_w} = {mask_h * mask_w}"
        )
    return mask_h, mask_w
