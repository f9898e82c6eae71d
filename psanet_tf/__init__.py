"""PSANet: Point-wise Spatial Attention Network for Scene Parsing (ECCV 2018) in TensorFlow and Keras."""

import importlib

# Imported at once, so that Keras can load files that hold them.
from psanet_tf.layers import PSALayer
from psanet_tf.models import PSANet, load_semseg_weights, semseg_state_dict
from psanet_tf.ops import psa_mask

__version__ = "0.1.0"

_LATER = {
    "SlidingWindow": "psanet_tf.evaluation.sliding_window",
    "attention_maps": "psanet_tf.evaluation.attention",
}
_SUBPACKAGES = ("data", "evaluation", "metrics", "serving", "training", "visualization")

__all__ = ["PSALayer", "PSANet", "load_semseg_weights", "psa_mask", "semseg_state_dict", *_LATER]


def __getattr__(name):
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"psanet_tf.{name}")
    raise AttributeError(f"module 'psanet_tf' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_LATER, *_SUBPACKAGES])
