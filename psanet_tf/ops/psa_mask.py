"""`psa_mask`: from over-complete masks to attention matrices."""

import tensorflow as tf

from psanet_tf.ops.psa_mask_stock import psa_mask_stock

DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)


def psa_mask(mask, mask_size=None):
    """Cuts, for every position, the window that falls on the feature map out of its over-complete mask.

    With p = (h, w) the position that predicted and q = (k, l) any position, and half = (size - 1) / 2::

        out[n, p, q] = mask[n, h, w, (k - h + half_h) * mask_w + (l - w + half_w)]   on the mask, else 0

    One gather serves both directions of the paper (section 3.2): for collect, p is the destination and q
    the source; for distribute, p is the source and q the destination. Differentiable.

    Args:
        mask: [N, H, W, mask_h * mask_w], float16, bfloat16, float32 or float64; N, H and W may be dynamic.
        mask_size: (mask_h, mask_w), both odd; may be smaller or larger than the window. Default:
            (2 * H - 1, 2 * W - 1), which needs H and W to be static.

    Returns:
        [N, H * W, H * W], the dtype of `mask`.

    Raises:
        ValueError: `mask` has another rank, dtype or number of channels; a mask size is even or not positive.

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
    return psa_mask_stock(mask, mask_size)


def checked_mask_size(mask_size, shape):
    """(mask_h, mask_w) as integers that fit a mask of static `shape` [N, H, W, channels].

    Raises:
        ValueError: no size and no static H, W to take one from; even or not positive; not the channels' number.
    """
    _, h, w, channels = shape
    if mask_size is None:
        if h is None or w is None:
            raise ValueError(f"mask_size is needed where H and W are dynamic, got a mask of shape {shape}")
        mask_size = (2 * h - 1, 2 * w - 1)
    try:
        mask_h, mask_w = (int(size) for size in mask_size)
    except (TypeError, ValueError):
        raise ValueError(f"mask_size must be two odd integers (mask_h, mask_w), got {mask_size!r}") from None
    for size in (mask_h, mask_w):
        if size < 1 or size % 2 == 0:
            raise ValueError(
                f"mask_size must be odd and positive, got {(mask_h, mask_w)}: use {size + 1 if size > 0 else 1}"
            )
    if channels is not None and channels != mask_h * mask_w:
        raise ValueError(
            f"mask has {channels} channels, but mask_size {(mask_h, mask_w)} "
            f"needs {mask_h} * {mask_w} = {mask_h * mask_w}"
        )
    return mask_h, mask_w
