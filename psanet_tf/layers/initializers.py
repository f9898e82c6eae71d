"""Initial weights of the original implementation."""

from psanet_tf.keras_api import keras


def backbone_kernel() -> keras.initializers.Initializer:
    """He et al. 2015 over the outputs: normal with variance 2 / (kernel area * output channels)."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def head_kernel() -> keras.initializers.Initializer:
    """PyTorch's default for convolutions: uniform within 1 / sqrt(kernel area * input channels)."""
    return keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")
