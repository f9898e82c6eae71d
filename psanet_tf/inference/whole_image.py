"""An image in one pass, at its own size or resized, without the sliding window."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.feature_sizes import OUTPUT_STRIDE, shrunk_size
from psanet_tf.inference.labeler import Labeler
from psanet_tf.inference.pixel_logits import PixelLogits, bilinear_neighbours
from psanet_tf.inference.sliding_window import scaled_size
from psanet_tf.models import PSANet


class WholeImage(Labeler):
    """Labels images of any size in one pass.

    Faster than `SlidingWindow` and not the protocol of the published scores: the network sees sizes that it was not
    trained on, and memory grows with the image.

    Args:
        predict: maps normalized images, float32 [1, h, w, C], to logits of that size.
        num_classes: K.
        padded: images are padded with the mean colour up to 8n+1 rows and columns, where features and pixels align.
        images: `ImageFormat` of what is labelled.
    """

    def __init__(
        self,
        predict: Callable[[tf.Tensor], tf.Tensor],
        num_classes: int,
        padded: bool = True,
        images: ImageFormat = PHOTOGRAPHS,
    ) -> None:
        super().__init__(predict, num_classes, images)
        self.padded = padded

    def bands(self, image: np.ndarray) -> Iterator[tuple[int, tf.Tensor]]:
        yield 0, tf.nn.softmax(self._logits(image))

    def pixel_logits(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> PixelLogits:
        logits = tf.gather_nd(self._logits(image), np.stack([rows, columns], axis=1)).numpy()
        return PixelLogits.of_entries([(np.arange(len(rows)), np.ones(len(rows)), logits)])

    def _logits(self, image):
        """float32 [H, W, K]"""
        image = self.images.checked(image)
        height, width = image.shape[:2]
        inputs = self.images.normalize(image)
        if self.padded:
            # The mean colour is 0 once normalized.
            inputs = tf.pad(inputs, [[0, padded_length(height) - height], [0, padded_length(width) - width], [0, 0]])
        return self._predicted(inputs[None])[0, :height, :width]


class ScaledImage(Labeler):
    """Labels images of any size in one pass per scale, resized as `SlidingWindow` does, without its crops.

    Args:
        predict: maps normalized images, float32 [B, h, w, C], to logits of that size.
        num_classes: K.
        base_size: long side, in pixels, at scale 1.
        scales: factors of `base_size`, over which probabilities are averaged.
        flip: average with the mirror image.
        images: `ImageFormat` of what is labelled.
    """

    def __init__(
        self,
        predict: Callable[[tf.Tensor], tf.Tensor],
        num_classes: int,
        base_size: int,
        scales: Sequence[float] = (1.0,),
        flip: bool = True,
        images: ImageFormat = PHOTOGRAPHS,
    ) -> None:
        super().__init__(predict, num_classes, images)
        self.base_size = base_size
        self.scales = tuple(scales)
        self.flip = flip

    def bands(self, image: np.ndarray) -> Iterator[tuple[int, tf.Tensor]]:
        image = self.images.checked(image)
        total = None
        for scale in self.scales:
            maps = self._logit_maps(image, scale)
            probabilities = tf.add_n([tf.nn.softmax(logits) for logits in maps]) / len(maps)
            full = tf.image.resize(probabilities, image.shape[:2])
            total = full if total is None else total + full
        yield 0, total / len(self.scales)

    def pixel_logits(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> PixelLogits:
        image = self.images.checked(image)
        entries = []
        for scale in self.scales:
            maps = self._logit_maps(image, scale)
            size = maps[0].shape[:2]
            along = [bilinear_neighbours(*axis) for axis in zip((rows, columns), image.shape[:2], size, strict=True)]
            for (y, down), (x, across) in itertools.product(*along):
                weight = down * across / (len(maps) * len(self.scales))
                pixels = np.flatnonzero(weight > 0)
                places = np.stack([y[pixels], x[pixels]], axis=1)
                entries += [(pixels, weight[pixels], tf.gather_nd(logits, places).numpy()) for logits in maps]
        return PixelLogits.of_entries(entries)

    def _logit_maps(self, image, scale):
        """float32 [h, w, K] of the resized image, and of its mirror image, mirrored back."""
        resized = tf.image.resize(image, scaled_size(image.shape[:2], self.base_size, scale))
        inputs = self.images.normalize(resized)[None]
        maps = [self._predicted(inputs)[0]]
        if self.flip:
            maps.append(tf.reverse(self._predicted(tf.reverse(inputs, [2]))[0], [1]))
        return maps


def padded_length(length: int) -> int:
    """The smallest 8n+1, at least 9, that is not below `length`."""
    return max(9, -(-(length - 1) // OUTPUT_STRIDE) * OUTPUT_STRIDE + 1)


def any_size(model: PSANet) -> PSANet:
    """The same network, with its weights, for images of any size.

    Args:
        model: `PSANet`.

    Returns:
        `PSANet` with input shape [None, None, C]: `model` itself, or a copy whose over-complete mask has the size that
        `model` was trained with; offsets beyond it weigh 0 before the softmax.

    Raises:
        ValueError: the attention is compact, which ties the network to one size.
    """
    config = model.get_config()
    height, width, channels = config["input_shape"]
    if height is None and width is None:
        return model
    if config["use_psa"]:
        if config["compact"]:
            raise ValueError(
                "a network with compact attention works only at the size it was built for, "
                f"{height}x{width}; label images with the sliding window"
            )
        if config["mask_size"] is None:
            shrunk = shrunk_size(model.feature_size((height, width)), config["shrink_factor"], config["variant"])
            config["mask_size"] = [2 * length - 1 for length in shrunk]
    copy = PSANet.from_config({**config, "input_shape": (None, None, channels)})
    copy.set_weights(model.get_weights())
    return copy
