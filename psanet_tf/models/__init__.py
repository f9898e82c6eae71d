"""Networks."""

from psanet_tf.models.from_config import build_model
from psanet_tf.models.psanet import PSANet

__all__ = ["PSANet", "build_model"]
