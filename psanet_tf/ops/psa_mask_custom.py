"""The window gather with the compiled op, and its gradients."""

import tensorflow as tf

from psanet_tf.ops.op_library import load_op_library


def psa_mask_custom(mask: tf.Tensor, mask_size: tuple[int, int]) -> tf.Tensor:
    """`psa_mask` with the compiled op.

    Args:
        mask: [N, H, W, mask_h * mask_w], float16, bfloat16, float32 or float64.
        mask_size: (mask_h, mask_w), positive Python integers.

    Returns:
        [N, H * W, H * W], the dtype of `mask`.

    Raises:
        OpUnavailableError: there is no library and none can be built.
    """
    mask_h, mask_w = mask_size
    return load_op_library().ops.psa_mask(mask=mask, mask_height=mask_h, mask_width=mask_w)


@tf.RegisterGradient("PsaMask")
def _gradient_of_psa_mask(op, upstream):
    mask_h, mask_w = op.get_attr("mask_height"), op.get_attr("mask_width")
    return load_op_library().ops.psa_mask_grad(
        gradient=upstream,
        mask_shape=_mask_shape(op.inputs[0], upstream, mask_h * mask_w),
        mask_height=mask_h,
        mask_width=mask_w,
    )


@tf.RegisterGradient("PsaMaskGrad")
def _gradient_of_psa_mask_grad(op, upstream):
    # The gradient is linear and PsaMask is its transpose.
    return psa_mask_custom(upstream, (op.get_attr("mask_height"), op.get_attr("mask_width"))), None


def _mask_shape(mask, upstream, channels):
    """Shape of the mask, [4] int32, without its values where H and W are static: they need not be kept for it."""
    n, h, w, _ = mask.shape
    if h is None or w is None:
        return tf.shape(mask)
    return tf.stack([tf.shape(upstream)[0] if n is None else n, h, w, channels])
