"""Which of Keras's layers and operations look at one position of a map at a time, or at all of them."""

from typing import Any

from psanet_tf.keras_api import keras

_GLOBAL_POOLING = ("GlobalAveragePooling2D", "GlobalMaxPooling2D")
# Layers and operations whose output at a position depends on the inputs there alone (or, for the group norms and for
# dropped channels and paths, on what has no place), under one condition: the axis, if there is one, is the last.
_POINTWISE_LAYERS = (
    *("Activation", "ReLU", "LeakyReLU", "ELU", "Softmax", "Identity", "Dense", "Rescaling", "Normalization"),
    *("BatchNormalization", "LayerNormalization", "RMSNormalization", "UnitNormalization", "GroupNormalization"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"),
    *("Dropout", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization"),
    *("LayerScale", "StochasticDepth"),  # of keras.applications
)
_POINTWISE_OPERATIONS = (
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative", "Absolute", "Square", "Sqrt", "Rsqrt"),
    *("Maximum", "Minimum", "Clip", "Exp", "Log", "Power", "Cast", "Relu", "Relu6", "LeakyRelu", "Elu", "Selu"),
    *("Gelu", "Silu", "Sigmoid", "HardSigmoid", "HardSilu", "Tanh", "Softplus", "Softsign"),
)


def is_kerass(operation: Any) -> bool:
    """Whether a layer or operation is Keras's own, not one of somebody else's by the same name."""
    return type(operation).__module__.startswith("keras.")


def is_pointwise(operation: Any) -> bool:
    """Whether what an operation gives at a position depends on what it takes there alone."""
    name = type(operation).__name__
    if not is_kerass(operation):
        return False
    if not isinstance(operation, keras.layers.Layer):
        return name in _POINTWISE_OPERATIONS
    axis = getattr(operation, "axis", -1)
    axes = axis if isinstance(axis, (list, tuple)) else (axis,)
    return name in _POINTWISE_LAYERS and all(one in (-1, 3, None) for one in axes)


def is_global_pooling(operation: Any) -> bool:
    """Whether an operation takes one value of all rows and columns."""
    if type(operation).__name__ == "Mean" and is_kerass(operation):
        return {axis % 4 for axis in (operation.axis if isinstance(operation.axis, (list, tuple)) else ())} == {1, 2}
    return isinstance(operation, tuple(getattr(keras.layers, name) for name in _GLOBAL_POOLING))
