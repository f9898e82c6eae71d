"""Which sublayers of a layer are frozen, as a configuration keeps it."""

import functools

from psanet_tf.keras_api import keras


def sublayer_flags(layer: keras.layers.Layer) -> dict[str, bool]:
    """The flags that differ.

    Args:
        layer: a built layer or model with a `sublayers()` method: {name: sublayer}; its sublayers may have one too.

    Returns:
        {path: `trainable`} of the sublayers whose flag is not that of the layer they are in, e.g.
        ``{"collect/reduce_bn": False}``.
    """
    flags = {}
    for name, sublayer in layer.sublayers().items():
        if sublayer.trainable != layer.trainable:
            flags[name] = sublayer.trainable
        if hasattr(sublayer, "sublayers"):
            flags |= {f"{name}/{path}": flag for path, flag in sublayer_flags(sublayer).items()}
    return flags


def set_sublayer_flags(layer: keras.layers.Layer, flags: dict[str, bool]) -> None:
    """Sets what `sublayer_flags` has told."""
    # A layer's flag is its sublayers' too, so theirs come after it.
    for path, flag in sorted(flags.items(), key=lambda item: item[0].count("/")):
        names = path.split("/")
        functools.reduce(lambda parent, name: parent.sublayers()[name], names, layer).trainable = flag
