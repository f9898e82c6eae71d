"""Which sublayers of a layer are frozen, and how a configuration keeps it."""

import functools

from psanet_tf.keras_api import keras


def sublayer_flags(layer: keras.layers.Layer) -> dict[str, bool]:
    """The flags that differ.

    Args:
        layer: a model, or a built layer with a `sublayers()` method: {name: sublayer}; its sublayers may have one too.

    Returns:
        {path: `trainable`} of the sublayers whose flag is not that of the layer they are in, e.g.
        ``{"collect/reduce_bn": False}``.
    """
    flags = {}
    for name, sublayer in _sublayers(layer).items():
        if sublayer.trainable != layer.trainable:
            flags[name] = sublayer.trainable
        flags |= {f"{name}/{path}": flag for path, flag in sublayer_flags(sublayer).items()}
    return flags


def set_sublayer_flags(layer: keras.layers.Layer, flags: dict[str, bool]) -> None:
    """Sets what `sublayer_flags` has told."""
    # A layer's flag is its sublayers' too, so theirs come after it.
    for path, flag in sorted(flags.items(), key=lambda item: item[0].count("/")):
        names = path.split("/")
        functools.reduce(lambda parent, name: _sublayers(parent)[name], names, layer).trainable = flag


def freeze_batch_norm(model: keras.Model) -> None:
    """Freezes every batch normalization of a model, wherever in it: statistics, scales and shifts stay as they are.

    To be called before `compile`, or followed by it.

    Args:
        model: any Keras model, a `PSANet` or one with a `PSALayer` in it among them.
    """
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _sublayers(layer):
    """{name: layer} of the layers in a model, or in a layer that tells of them."""
    if hasattr(layer, "sublayers"):
        return layer.sublayers()
    return {inner.name: inner for inner in layer.layers} if isinstance(layer, keras.Model) else {}
