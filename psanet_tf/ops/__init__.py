"""The operations under the layers: functions of tensors, without weights."""

from psanet_tf.ops.op_library import OpUnavailableError
from psanet_tf.ops.psa_mask import psa_mask, psa_mask_implementation
from psanet_tf.ops.resize import resize_bilinear

__all__ = ["OpUnavailableError", "psa_mask", "psa_mask_implementation", "resize_bilinear"]
