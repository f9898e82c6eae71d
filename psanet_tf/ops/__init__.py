"""The operations under the layers: functions of tensors, without weights."""

from psanet_tf.ops.op_library import OpUnavailableError, load_op_library
from psanet_tf.ops.psa_attention import psa_attention
from psanet_tf.ops.psa_mask import psa_mask, psa_mask_implementation
from psanet_tf.ops.resize import resample_bilinear, resize_bilinear

__all__ = [
    "OpUnavailableError",
    "load_op_library",
    "psa_attention",
    "psa_mask",
    "psa_mask_implementation",
    "resample_bilinear",
    "resize_bilinear",
]
