"""The window gather with stock TensorFlow ops and no gather: pad, reshape, slice."""

import tensorflow as tf


def psa_mask_stock(mask: tf.Tensor, mask_size: tuple[int, int]) -> tf.Tensor:
    """`psa_mask` in a form that any TensorFlow runs and XLA compiles, with its gradient.

    A position's offsets k - h along one axis turn into absolute coordinates k by a change of row length
    (the "skew" also known from relative position encodings), done once per axis.

    Args:
        mask: [N, H, W, mask_h * mask_w], any dtype.
        mask_size: (mask_h, mask_w), positive Python integers.

    Returns:
        [N, H * W, H * W], the dtype of `mask`.
    """
    mask_h, mask_w = mask_size
    static_n, static_h, static_w = mask.shape[:3]
    dynamic = tf.shape(mask)
    n, h, w = (dynamic[axis] if length is None else length for axis, length in enumerate(mask.shape[:3]))
    x = tf.reshape(mask, tf.stack([n, h, w, mask_h, mask_w]))
    x = tf.transpose(x, [0, 2, 1, 3, 4])
    x = _relative_to_absolute(tf.reshape(x, tf.stack([n * w, h, mask_h, mask_w])), h, mask_h)
    x = tf.transpose(tf.reshape(x, tf.stack([n, w, h, h, mask_w])), [0, 2, 3, 1, 4])  # [N, H, K, W, mask_w]
    x = _relative_to_absolute(tf.reshape(x, tf.stack([n * h * h, w, mask_w, 1])), w, mask_w)
    x = tf.transpose(tf.reshape(x, tf.stack([n, h, h, w, w])), [0, 1, 3, 2, 4])  # [N, H, W, K, L]
    y = tf.reshape(x, tf.stack([n, h * w, h * w]))
    positions = static_h * static_w if static_h is not None and static_w is not None else None
    y.set_shape([static_n, positions, positions])
    return y


def _relative_to_absolute(x, size, mask_size):
    """[A, size, mask_size, B] of relative offsets -> [A, size, size, B] of coordinates.

    y[a, i, j] = x[a, i, j - i + (mask_size - 1) // 2], 0 where that is off the mask.
    """
    # The mask's offsets are -before .. behind; bring it to -(size - 1) .. size - 1, those that can occur ...
    before = (mask_size - 1) // 2
    behind = mask_size - 1 - before
    reach = size - 1
    x = x[:, :, _at_least_zero(before - reach) : mask_size - _at_least_zero(behind - reach)]
    # ... plus one column: rows of 2 * size, so that size = 1 needs no case of its own.
    x = tf.pad(x, [(0, 0), (0, 0), (_at_least_zero(reach - before), _at_least_zero(reach - behind) + 1), (0, 0)])
    # Element (i, j - i + size - 1) sits at i * 2 * size + j - i + size - 1 = i * (2 * size - 1) + j + (size - 1):
    # in rows one shorter, behind the first size - 1 elements, j is the column.
    flat = tf.reshape(x, tf.stack([tf.shape(x)[0], 2 * size * size, x.shape[3]]))
    flat = flat[:, size - 1 : size - 1 + size * (2 * size - 1)]
    rows = tf.reshape(flat, tf.stack([tf.shape(x)[0], size, 2 * size - 1, x.shape[3]]))
    return rows[:, :, :size]


def _at_least_zero(length):
    return tf.maximum(length, 0) if isinstance(length, tf.Tensor) else max(length, 0)
