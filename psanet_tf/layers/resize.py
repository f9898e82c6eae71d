"""Bilinear resize to the size of another tensor as a layer."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.layers.arguments import checked_bool, checked_zoom_factor
from psanet_tf.ops import resample_bilinear, resize_bilinear


@keras.saving.register_keras_serializable("psanet_tf")
class ResizeLike(keras.layers.Layer):
    """Resizes feature maps bilinearly to the size of another tensor or a fraction of it.

    Args:
        zoom_factor: 8 gives the size of `like`; 1, 2 and 4 give (size - 1) / 8 * zoom_factor + 1 rows and
            columns, the coarser outputs of the original's option of that name.
        align_corners: False for half-pixel centres; see `resize_bilinear`.
        grid: (stride, row, column): the features look at pixels that far apart, the first one at that row and column
            of `like`, and are put where they look (see `resample_bilinear`), whatever `align_corners` says. None: the
            features lie over all of `like`.

    Call arguments:
        inputs: a pair of tensors: features [N, H, W, C] and `like` [N, height, width, ...], of which only the
            size is used.

    Returns:
        [N, height, width, C] for `zoom_factor=8`, in the layer's compute dtype.

    Raises:
        ValueError: `zoom_factor` is none of 1, 2, 4, 8; `align_corners` is neither True nor False; `grid` is not
            three numbers.
    """

    def __init__(
        self,
        zoom_factor: int = 8,
        align_corners: bool = True,
        grid: tuple[int, float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.zoom_factor = checked_zoom_factor(zoom_factor)
        self.align_corners = checked_bool("align_corners", align_corners)
        if grid is not None and len(grid) != 3:
            raise ValueError(f"grid must be (stride, row, column) or None, got {grid!r}")
        self.grid = None if grid is None else tuple(grid)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        features, like = inputs
        dynamic = tf.shape(like)
        size = [self._zoomed(dynamic[i] if like.shape[i] is None else like.shape[i]) for i in (1, 2)]
        if self.grid is None:
            return resize_bilinear(features, size, self.align_corners)
        stride, *offset = self.grid
        reached = [None if length is None else (length - 1) * stride + 1 for length in features.shape[1:3]]
        if offset == [0, 0] and reached == list(like.shape[1:3]):
            return resize_bilinear(features, size, align_corners=True)
        return resample_bilinear(features, size, (stride, stride), offset, step=8 // self.zoom_factor)

    def compute_output_shape(self, input_shape: Sequence[Sequence[int | None]]) -> tuple[int | None, ...]:
        features, like = input_shape
        size = [None if length is None else self._zoomed(length) for length in like[1:3]]
        return (features[0], *size, features[3])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "zoom_factor": self.zoom_factor,
            "align_corners": self.align_corners,
            "grid": self.grid,
        }

    def _zoomed(self, length):
        return length if self.zoom_factor == 8 else (length - 1) // 8 * self.zoom_factor + 1
