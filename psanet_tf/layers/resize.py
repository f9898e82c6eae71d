"""Bilinear resize to the size of another tensor as a layer."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.layers.arguments import checked_bool, checked_zoom_factor
from psanet_tf.ops import resize_bilinear


@keras.saving.register_keras_serializable("psanet_tf")
class ResizeLike(keras.layers.Layer):
    """Resizes feature maps bilinearly to the size of another tensor or a fraction of it.

    Args:
        zoom_factor: 8 gives the size of `like`; 1, 2 and 4 give (size - 1) / 8 * zoom_factor + 1 rows and
            columns, the coarser outputs of the original's option of that name.
        align_corners: False for half-pixel centres; see `resize_bilinear`.

    Call arguments:
        inputs: a pair of tensors: features [N, H, W, C] and `like` [N, height, width, ...], of which only the
            size is used.

    Returns:
        [N, height, width, C] for `zoom_factor=8`, in the layer's compute dtype.

    Raises:
        ValueError: `zoom_factor` is none of 1, 2, 4, 8; `align_corners` is neither True nor False.
    """

    def __init__(self, zoom_factor: int = 8, align_corners: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.zoom_factor = checked_zoom_factor(zoom_factor)
        self.align_corners = checked_bool("align_corners", align_corners)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        features, like = inputs
        dynamic = tf.shape(like)
        size = [self._zoomed(dynamic[i] if like.shape[i] is None else like.shape[i]) for i in (1, 2)]
        return resize_bilinear(features, size, self.align_corners)

    def compute_output_shape(self, input_shape: Sequence[Sequence[int | None]]) -> tuple[int | None, ...]:
        features, like = input_shape
        size = [None if length is None else self._zoomed(length) for length in like[1:3]]
        return (features[0], *size, features[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "zoom_factor": self.zoom_factor, "align_corners": self.align_corners}

    def _zoomed(self, length):
        return length if self.zoom_factor == 8 else (length - 1) // 8 * self.zoom_factor + 1
