"""Layers that hold the variables of others."""

import functools
from typing import Any

from psanet_tf.keras_api import keras


def shares_weights(layer: keras.layers.Layer) -> bool:
    """Whether another layer of its class can be made from its configuration alone, to hold its variables.

    True of Keras's own layers without sublayers (but for Lambda, whose function may be no data), and of classes derived
    from its convolutions and normalizations. Any other layer may be called again, but has no second one beside it.
    """
    has_sublayers = any(True for _ in layer._flatten_layers(include_self=False))
    if has_sublayers or isinstance(layer, keras.layers.Lambda):
        return False
    bases = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    return type(layer).__module__.startswith("keras.") or isinstance(layer, bases)


def with_weights_of(layer: keras.layers.Layer, kind: type, changes: dict[str, Any]) -> keras.layers.Layer:
    """A new layer with the variables of another one: what is assigned to or trained in one is so in the other.

    Args:
        layer: built, of Keras 3.
        kind: class of the new one, made by `from_config`.
        changes: arguments in which its configuration differs.

    Returns:
        A layer of `kind`, not yet called; it is built with the first call.

    Raises:
        ValueError: when it is built, with other weights than `layer` has.
    """
    new = kind.from_config(layer.get_config() | changes)
    if layer.weights:
        new.build = _build_with(new, layer)
    return new


def _build_with(new, layer):
    build = new.build

    @functools.wraps(build)
    def build_once(*args, **kwargs):
        remaining = list(layer.weights)
        was_trainable = layer.trainable

        def shared_weight(*positional, shape=None, trainable=True, name=None, **_):
            shape = tuple((positional[0] if positional else shape) or ())
            for variable in remaining:
                if tuple(variable.shape) == shape and name in (None, variable.name):
                    remaining[:] = [other for other in remaining if other is not variable]
                    # Which list of the layer's it gets into is settled by this; the flag proper is set below.
                    variable.trainable = trainable
                    return variable
            there = ", ".join(f"{variable.name} {list(variable.shape)}" for variable in layer.weights)
            raise ValueError(f"{layer.name!r} would have weights {name} {list(shape)}; it has {there or 'none'}")

        new.add_weight = shared_weight
        try:
            build(*args, **kwargs)
        finally:
            del new.add_weight
            new.build = build
        new.trainable = True  # Keras takes no notice of a value that is there already
        new.trainable = was_trainable

    return build_once
