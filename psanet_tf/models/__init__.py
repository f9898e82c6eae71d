"""Networks and their weights."""

from psanet_tf.models.from_config import build_model
from psanet_tf.models.mmseg_weights import load_mmseg_weights, mmseg_state_dict
from psanet_tf.models.psanet import PSANet
from psanet_tf.models.public_weights import (
    LoadedWeights,
    WeightsMismatchError,
    load_public_weights,
    public_state_dict,
)
from psanet_tf.models.semseg_weights import load_semseg_weights, semseg_state_dict

__all__ = [
    "LoadedWeights",
    "PSANet",
    "WeightsMismatchError",
    "build_model",
    "load_mmseg_weights",
    "load_public_weights",
    "load_semseg_weights",
    "mmseg_state_dict",
    "public_state_dict",
    "semseg_state_dict",
]
