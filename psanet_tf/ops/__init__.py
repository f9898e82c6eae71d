"""The operations under the layers: functions of tensors, without weights."""

from psanet_tf.ops.psa_mask import psa_mask
from psanet_tf.ops.resize import resize_bilinear

__all__ = ["psa_mask", "resize_bilinear"]
