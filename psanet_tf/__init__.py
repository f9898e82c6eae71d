"""PSANet: Point-wise Spatial Attention Network for Scene Parsing (ECCV 2018) in TensorFlow and Keras.

Importing this package registers its layers and networks with Keras, which loads files only with classes that are
registered by then.
"""

import importlib
import sys

if sys.argv[:1] == ["-m"] and {"psanet_tf", "-mpsanet_tf"} & set(sys.orig_argv):
    # `python -m psanet_tf` imports this before it is the command, which has TensorFlow silent before it is imported.
    from psanet_cli.app import quiet_libraries

    quiet_libraries()

from psanet_tf.layers import PSALayer
from psanet_tf.models import (
    PSANet,
    load_mmseg_weights,
    load_semseg_weights,
    mmseg_state_dict,
    semseg_state_dict,
)
from psanet_tf.ops import psa_mask

__version__ = "0.1.0"

# These need Keras 3, and more of what is installed, so they are imported where they are used.
_HOME = {
    "SlidingWindow": "psanet_tf.evaluation.sliding_window",
    "attention_maps": "psanet_tf.evaluation.attention",
}
_SUBPACKAGES = ("data", "evaluation", "metrics", "serving", "training", "visualization")

__all__ = [
    "PSALayer",
    "PSANet",
    "load_mmseg_weights",
    "load_semseg_weights",
    "mmseg_state_dict",
    "psa_mask",
    "semseg_state_dict",
    *_HOME,
]


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"psanet_tf.{name}")
    raise AttributeError(f"module 'psanet_tf' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME, *_SUBPACKAGES])
