"""Pooling over windows with gaps, which takes the place of a strided pooling whose stride has become a dilation."""

from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.layers.arguments import checked_choice, checked_integer


class _DilatedPooling2D(keras.layers.Layer):
    """Pooling at stride 1 over ``pool_size * pool_size`` positions that lie `dilation_rate` apart.

    Sampled at every `dilation_rate`-th position it gives what the plain pooling at stride 1 gives for inputs sampled
    likewise, padding included.

    Args:
        pool_size: rows and columns of the window, (rows, columns).
        dilation_rate: distance of neighbours in the window.
        padding: "same", where what lies outside counts neither for the maximum nor for the mean, or "valid".

    Call arguments:
        inputs: [N, H, W, C].

    Returns:
        [N, H, W, C] for "same", (size - 1) * dilation_rate fewer rows and columns for "valid".

    Raises:
        ValueError: an argument out of its range.
    """

    _kind: str

    def __init__(self, pool_size: tuple[int, int], dilation_rate: int, padding: str = "valid", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool_size = tuple(checked_integer("pool_size", size) for size in pool_size)
        self.dilation_rate = checked_integer("dilation_rate", dilation_rate)
        self.padding = checked_choice("padding", padding, ("same", "valid"))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if self.pool_size == (1, 1):
            return tf.identity(inputs)
        return self._same(inputs) if self.padding == "same" else self._pool(inputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        if self.padding == "same":
            return tuple(input_shape)
        batch, *lengths, channels = input_shape
        lost = [self.dilation_rate * (size - 1) for size in self.pool_size]
        rest = [None if length is None else length - gone for length, gone in zip(lengths, lost, strict=True)]
        return (batch, *rest, channels)

    def get_config(self) -> dict[str, Any]:
        own = {"pool_size": self.pool_size, "dilation_rate": self.dilation_rate, "padding": self.padding}
        return {**super().get_config(), **own}

    def _pool(self, inputs):
        rates = [self.dilation_rate] * 2
        return tf.nn.pool(inputs, self.pool_size, self._kind, padding="VALID", dilations=rates)

    def _padded(self, inputs, value):
        borders = []
        for size in self.pool_size:
            before = (size - 1) // 2 * self.dilation_rate
            borders.append([before, (size - 1) * self.dilation_rate - before])
        # Not `tf.nn.pool`'s own "SAME", which pads with zeros once there are dilations.
        return tf.pad(inputs, [[0, 0], *borders, [0, 0]], constant_values=value)

    def _same(self, inputs):
        raise NotImplementedError


@keras.saving.register_keras_serializable("psanet_tf")
class DilatedMaxPooling2D(_DilatedPooling2D):
    """The maximum over a window with gaps; see `_DilatedPooling2D`."""

    _kind = "MAX"

    def _same(self, inputs):
        return self._pool(self._padded(inputs, inputs.dtype.min))


@keras.saving.register_keras_serializable("psanet_tf")
class DilatedAveragePooling2D(_DilatedPooling2D):
    """The mean over a window with gaps; see `_DilatedPooling2D`."""

    _kind = "AVG"

    def _same(self, inputs):
        inside = self._pool(self._padded(tf.ones_like(inputs[:1, :, :, :1]), 0))
        return self._pool(self._padded(inputs, 0)) / inside
