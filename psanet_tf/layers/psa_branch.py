"""`PSABranch`: one direction of the point-wise spatial attention module."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.layers.arguments import checked_bool, checked_choice, checked_integer, checked_integers
from psanet_tf.layers.batch_normalization import BatchNormalization
from psanet_tf.layers.initializers import head_kernel
from psanet_tf.ops import psa_mask, resize_bilinear
from psanet_tf.ops.psa_mask import IMPLEMENTATIONS

DIRECTIONS = ("collect", "distribute")


@keras.saving.register_keras_serializable("psanet_tf")
class PSABranch(keras.layers.Layer):
    """Reduced features and attention matrix of one direction; `PSALayer` makes its branches itself.

    Args:
        direction: ``"collect"`` or ``"distribute"``.
        mid_channels: channels of the reduced features.
        mask_size: (rows, columns) of the mask; of a compact one, those of the shrunk map.
        compact, psa_softmax, synchronized_batch_norm, implementation: see `PSALayer`.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Attributes:
        reduce_conv, reduce_bn: 1x1 convolution to `mid_channels` and its normalization.
        attention_conv, attention_bn: 1x1 convolution of the reduced features and its normalization.
        mask_conv: 1x1 convolution to the mask; all five are None until the layer is built.

    Call arguments:
        inputs: [N, H, W, C].
        size: (h, w) that the reduced features are resized to, integers or scalar integer tensors.
        align_corners: of that resize, see `resize_bilinear`.
        training: whether batch normalization uses the batch's statistics.

    Returns:
        (f, A): f [N, h * w, mid_channels] and A [N, h * w, h * w] with rows for the destinations and columns for the
        sources, in the layer's compute dtype.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        direction: str,
        mid_channels: int,
        mask_size: tuple[int, int],
        compact: bool = False,
        psa_softmax: bool = True,
        synchronized_batch_norm: bool = False,
        implementation: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.direction = checked_choice("direction", direction, DIRECTIONS)
        self.mid_channels = checked_integer("mid_channels", mid_channels)
        self.mask_size = checked_integers("mask_size", mask_size, "two integers (rows, columns)")
        self.compact = checked_bool("compact", compact)
        self.psa_softmax = checked_bool("psa_softmax", psa_softmax)
        self.synchronized_batch_norm = checked_bool("synchronized_batch_norm", synchronized_batch_norm)
        self.implementation = checked_choice("implementation", implementation, IMPLEMENTATIONS)
        if self.implementation == "custom":
            self.supports_jit = False  # Keras 3 asks for it before it compiles a model with XLA
        self.reduce_conv = self.reduce_bn = None
        self.attention_conv = self.attention_bn = None
        self.mask_conv = None

    def build(self, input_shape: Sequence[int | None]) -> None:
        mid = self.mid_channels
        self.reduce_conv = convolution(self, "reduce_conv", input_shape[-1], mid)
        self.reduce_bn = normalization(self, "reduce_bn", mid)
        self.attention_conv = convolution(self, "attention_conv", mid, mid)
        self.attention_bn = normalization(self, "attention_bn", mid)
        self.mask_conv = convolution(self, "mask_conv", mid, self.mask_size[0] * self.mask_size[1])
        super().build(input_shape)

    def call(
        self,
        inputs: tf.Tensor,
        size: Sequence[int | tf.Tensor],
        align_corners: bool | tf.Tensor = True,
        training: bool | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        features = tf.convert_to_tensor(inputs)
        if not training and align_corners is True and _picks_samples(features, size):
            # Without batch statistics the 1x1 convolution sees every position alone: drop positions before it.
            features = resize_bilinear(features, size)
        reduced = tf.nn.relu(self.reduce_bn(self.reduce_conv(features), training=training))
        reduced = resize_bilinear(reduced, size, align_corners)
        mask = tf.nn.relu(self.attention_bn(self.attention_conv(reduced), training=training))
        mask = self.mask_conv(mask)
        n, positions = tf.shape(reduced)[0], size[0] * size[1]
        if self.compact:
            attention = tf.reshape(mask, tf.stack([n, positions, positions]))
        else:
            attention = psa_mask(mask, self.mask_size, self.implementation)
        if self.direction == "distribute":
            # Sources predicted their weight at every destination: bring the destinations to the rows.
            attention = tf.transpose(attention, [0, 2, 1])
        if self.psa_softmax:
            wide = attention if attention.dtype == tf.float64 else tf.cast(attention, tf.float32)
            attention = tf.cast(tf.nn.softmax(wide), attention.dtype)
        return tf.reshape(reduced, tf.stack([n, positions, self.mid_channels])), attention

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "direction": self.direction,
            "mid_channels": self.mid_channels,
            "mask_size": self.mask_size,
            "compact": self.compact,
            "psa_softmax": self.psa_softmax,
            "synchronized_batch_norm": self.synchronized_batch_norm,
            "implementation": self.implementation,
        }

    def sublayers(self) -> dict[str, keras.layers.Layer]:
        """{attribute: layer} of the sublayers of a built layer."""
        names = ("reduce_conv", "reduce_bn", "attention_conv", "attention_bn", "mask_conv")
        return {name: getattr(self, name) for name in names}


def convolution(parent: keras.layers.Layer, name: str, in_channels: int, out_channels: int) -> keras.layers.Conv2D:
    """A built 1x1 convolution without bias, a sublayer of `parent`."""
    layer = keras.layers.Conv2D(
        out_channels,
        1,
        use_bias=False,
        data_format="channels_last",
        kernel_initializer=head_kernel(),
        dtype=parent.dtype_policy,
        trainable=parent.trainable,
        name=name,
    )
    return _built(layer, in_channels)


def normalization(parent: keras.layers.Layer, name: str, channels: int) -> BatchNormalization:
    """A built normalization, a sublayer of `parent`."""
    layer = BatchNormalization(
        synchronized=parent.synchronized_batch_norm,
        dtype=parent.dtype_policy,
        trainable=parent.trainable,
        name=name,
    )
    return _built(layer, channels)


def _built(layer, channels):
    with tf.name_scope(layer.name):
        layer.build((None, None, None, channels))
    return layer


def _picks_samples(features, size):
    """Whether the resize is exactly every s-th sample, for whole s."""
    return all(
        before is not None and not isinstance(after, tf.Tensor) and (after == 1 or (before - 1) % (after - 1) == 0)
        for before, after in zip(features.shape[1:3], size, strict=True)
    )
