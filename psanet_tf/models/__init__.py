"""Networks and their weights."""

from psanet_tf.models.from_config import build_model
from psanet_tf.models.psanet import PSANet
from psanet_tf.models.semseg_weights import (
    LoadedWeights,
    WeightsMismatchError,
    load_semseg_weights,
    semseg_state_dict,
)

__all__ = [
    "LoadedWeights",
    "PSANet",
    "WeightsMismatchError",
    "build_model",
    "load_semseg_weights",
    "semseg_state_dict",
]
