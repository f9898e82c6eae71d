"""PSANet: Point-wise Spatial Attention Network for Scene Parsing (ECCV 2018) in TensorFlow and Keras.

Importing this package registers its layers and networks with Keras, which loads files only with classes that are
registered by then.
"""

from psanet_tf.inference.attention import attention_maps
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.inference.sliding_window import SlidingWindow
from psanet_tf.layers import PSALayer, freeze_batch_norm
from psanet_tf.models import PSANet
from psanet_tf.ops import psa_mask
from psanet_tf.weights.mmseg import load_mmseg_weights, mmseg_state_dict
from psanet_tf.weights.semseg import load_semseg_weights, semseg_state_dict

__version__ = "0.2.0"

__all__ = [
    "PSALayer",
    "PSANet",
    "Segmenter",
    "SlidingWindow",
    "attention_maps",
    "freeze_batch_norm",
    "load_mmseg_weights",
    "load_semseg_weights",
    "mmseg_state_dict",
    "psa_mask",
    "semseg_state_dict",
]
