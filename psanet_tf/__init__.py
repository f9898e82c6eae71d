"""PSANet: Point-wise Spatial Attention Network for Scene Parsing (ECCV 2018) in TensorFlow and Keras."""

import importlib
import os
import sys

__version__ = "0.1.0"

_HOME = {
    "PSALayer": "psanet_tf.layers",
    "PSANet": "psanet_tf.models",
    "load_semseg_weights": "psanet_tf.models",
    "semseg_state_dict": "psanet_tf.models",
    "psa_mask": "psanet_tf.ops",
    "SlidingWindow": "psanet_tf.evaluation.sliding_window",
    "attention_maps": "psanet_tf.evaluation.attention",
}
_SUBPACKAGES = ("data", "evaluation", "metrics", "serving", "training", "visualization")

__all__ = list(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"psanet_tf.{name}")
    raise AttributeError(f"module 'psanet_tf' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME, *_SUBPACKAGES])


# Keras loads files only with classes that are registered by then, so the layers and networks are imported with the
# package. Not for the `psanet` command: its help comes at once, and subcommands import what they need.
if os.path.basename(sys.argv[0] if sys.argv else "") not in ("psanet", "psanet.exe"):
    importlib.import_module("psanet_tf.models")
