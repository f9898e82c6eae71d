"""`PSABranch`: one direction of the point-wise spatial attention module."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.layers.arguments import (
    checked_block_size,
    checked_bool,
    checked_choice,
    checked_integer,
    checked_integers,
)
from psanet_tf.layers.batch_normalization import BatchNormalization
from psanet_tf.layers.initializers import head_kernel
from psanet_tf.ops import psa_attention, psa_mask, resize_bilinear
from psanet_tf.ops.psa_attention import DIRECTIONS, BlockSize, apply_attention, attention_matrix
from psanet_tf.ops.psa_mask import IMPLEMENTATIONS


@keras.saving.register_keras_serializable("psanet_tf")
class PSABranch(keras.layers.Layer):
    """Attended features and attention matrix of one direction; `PSALayer` makes its branches itself.

    Args:
        direction: ``"collect"`` or ``"distribute"``.
        mid_channels: channels of the reduced features.
        mask_size: (rows, columns) of the mask; of a compact one, those of the shrunk map.
        compact, psa_softmax, synchronized_batch_norm, implementation, block_size: see `PSALayer`.
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
        [N, h, w, mid_channels], the sums of the reduced features with the attention's weights, in the layer's compute
        dtype.

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
        block_size: BlockSize = "auto",
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
        self.block_size = checked_block_size(block_size, self.compact)
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
    ) -> tf.Tensor:
        reduced, predictors = self._reduced_and_predictors(inputs, size, align_corners, training)
        if self.compact:
            return apply_attention(self._matrix(predictors), reduced, self.direction)
        kernel = tf.reshape(tf.convert_to_tensor(self.mask_conv.kernel), [self.mid_channels, *self.mask_size])
        return psa_attention(
            reduced, predictors, kernel, self.direction, self.psa_softmax, self.block_size, self.implementation
        )

    def attention(
        self, inputs: tf.Tensor, size: Sequence[int | tf.Tensor], align_corners: bool | tf.Tensor = True
    ) -> tf.Tensor:
        """The attention matrix in inference mode, whatever the block size.

        Args:
            inputs, size, align_corners: as for a call.

        Returns:
            [N, h * w, h * w], rows for the destinations and columns for the sources.
        """
        return self._matrix(self._reduced_and_predictors(inputs, size, align_corners, training=False)[1])

    def _matrix(self, predictors):
        mask = self.mask_conv(predictors)
        if self.compact:
            n, h, w = tf.unstack(tf.shape(mask)[:3])
            logits = tf.reshape(mask, tf.stack([n, h * w, h * w]))
        else:
            logits = psa_mask(mask, self.mask_size, self.implementation)
        return attention_matrix(logits, self.direction, self.psa_softmax)

    def _reduced_and_predictors(self, inputs, size, align_corners, training):
        features = tf.convert_to_tensor(inputs)
        if not training and align_corners is True and _picks_samples(features, size):
            # Without batch statistics the 1x1 convolution sees every position alone: drop positions before it.
            features = resize_bilinear(features, size)
        reduced = tf.nn.relu(self.reduce_bn(self.reduce_conv(features), training=training))
        reduced = resize_bilinear(reduced, size, align_corners)
        return reduced, tf.nn.relu(self.attention_bn(self.attention_conv(reduced), training=training))

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
            "block_size": self.block_size,
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
