"""Keras layers of the network; they know nothing of data, training or files."""

from psanet_tf.layers.batch_normalization import BatchNormalization
from psanet_tf.layers.convolution import Conv2D
from psanet_tf.layers.dropout import SpatialDropout2D
from psanet_tf.layers.psa import PSA_TYPES, PSALayer
from psanet_tf.layers.psa_branch import PSABranch
from psanet_tf.layers.resize import ResizeLike
from psanet_tf.layers.trainable_flags import freeze_batch_norm

__all__ = [
    "PSA_TYPES",
    "BatchNormalization",
    "Conv2D",
    "PSABranch",
    "PSALayer",
    "ResizeLike",
    "SpatialDropout2D",
    "freeze_batch_norm",
]
