"""How Keras 3's `clone_model` comes to make a `PSANet` of a `PSANet`."""

from typing import Any

from psanet_tf.keras_api import LEGACY_KERAS, keras
from psanet_tf.layers import ResizeLike


@keras.saving.register_keras_serializable("psanet_tf")
class Logits(ResizeLike):
    """The resize of a network's logits; it carries the network's arguments.

    `clone_model` copies a functional model layer by layer and gives the copies' inputs and outputs to the class's
    constructor, which has nothing but them to tell what network they make up.

    Args:
        network: the arguments of the `PSANet`, as its configuration names them.
        zoom_factor, align_corners, grid: as for `ResizeLike`.
    """

    def __init__(self, network: dict, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._network = tuple(network.items())  # Keras would take a dict to hold layers

    @property
    def network(self) -> dict:
        return dict(self._network)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "network": self.network}


def is_functional_call(arguments: tuple) -> bool:
    """Whether a constructor's positional arguments are (inputs, outputs), as Keras 3's `clone_model` gives them."""
    return len(arguments) == 2 and not LEGACY_KERAS and keras.utils.is_keras_tensor(arguments[0])


def network_arguments(layers: list[keras.layers.Layer]) -> dict | None:
    """The arguments of the network that `layers` carry, or None where they carry none."""
    return next((layer.network for layer in layers if isinstance(layer, Logits)), None)


def same_layers(layers: list[keras.layers.Layer], others: list[keras.layers.Layer]) -> bool:
    """Whether both are the same layers but for weights and for which of them are frozen."""
    return _description(layers) == _description(others)


def _description(layers):
    def described(layer):
        return type(layer), _without_flags(layer.get_config())

    return {layer.name: described(layer) for layer in layers if not isinstance(layer, keras.layers.InputLayer)}


def _without_flags(config):
    if isinstance(config, dict):
        return {key: _without_flags(value) for key, value in config.items() if "trainable" not in key}
    return [_without_flags(value) for value in config] if isinstance(config, (list, tuple)) else config
