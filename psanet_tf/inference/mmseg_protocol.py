"""MMSegmentation's prediction: the image fitted into a scale, labelled whole or crop by crop, logits brought back."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.inference.labeler import Labeler
from psanet_tf.inference.pixel_logits import PixelLogits
from psanet_tf.ops import resize_bilinear

_BAND_BYTES = 64 * 2**20


class MMSegProtocol(Labeler):
    """Labels images of any size with a network that takes any size.

    For each factor the image is resized to fit into ``factor * scale``, rounded (integers), normalized, and seen by the
    network as a whole or in crops, whose logits are averaged where they overlap. The *logits* are resized to the image,
    and their softmax is averaged over factors and mirror images (mmsegmentation 1.2: `EncoderDecoder`, test modes
    ``whole`` and ``slide``).

    Args:
        predict: maps normalized images, float32 [B, h, w, C], to logits [B, h, w, K].
        num_classes: K.
        scale: (long side, short side) in pixels that an image is fitted into at factor 1.
        align_corners: of the resize of the logits.
        crop_size: (height, width) of crops; None: the image as a whole.
        stride: (down, across), distance of neighbouring crops; the last ones are flush with the border.
        scales: factors of `scale`.
        flip: average with the mirror image.
        batch_size: crops per call of `predict`.
        images: `ImageFormat` of what is labelled.
    """

    def __init__(
        self,
        predict: Callable[[tf.Tensor], tf.Tensor],
        num_classes: int,
        scale: Sequence[int],
        align_corners: bool = False,
        crop_size: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        batch_size: int = 2,
        images: ImageFormat = PHOTOGRAPHS,
    ) -> None:
        super().__init__(predict, num_classes, images)
        self.scale = tuple(scale)
        self.align_corners = align_corners
        self.crop_size = crop_size and tuple(crop_size)
        self.stride = stride and tuple(stride)
        self.scales = tuple(scales)
        self.flip = flip
        self.batch_size = batch_size

    def bands(self, image: np.ndarray) -> Iterator[tuple[int, tf.Tensor]]:
        """Yields ``(first_row, probabilities)`` from top to bottom; probabilities are float32 [rows, W, K]."""
        image = self.images.checked(image)
        height, width = image.shape[:2]
        maps = list(self._logit_maps(image))
        rows_per_band = max(1, _BAND_BYTES // (width * self.num_classes * 4))
        for first_row in range(0, height, rows_per_band):
            rows = np.arange(first_row, min(first_row + rows_per_band, height))
            total = None
            for logits in maps:
                part = tf.nn.softmax(_resized_rows(logits, rows, (height, width), self.align_corners))
                total = part if total is None else total + part
            yield first_row, total / len(maps)

    def logits(self, image: np.ndarray) -> tf.Tensor:
        """float32 [H, W, K] at factor 1, without the mirror image; arguments and errors as of a call."""
        image = self.images.checked(image)
        logits = self._seen_logits(fitted(image, self.scale))
        return _resized_rows(logits, np.arange(image.shape[0]), image.shape[:2], self.align_corners)

    def pixel_logits(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> PixelLogits:
        image = self.images.checked(image)
        size = image.shape[:2]
        at_once = max(1, _BAND_BYTES // (size[1] * self.num_classes * 4))
        entries = []
        for logits in self._logit_maps(image):
            for first in range(0, len(rows), at_once):
                pixels = np.arange(first, min(first + at_once, len(rows)))
                resized = _resized_rows(logits, rows[pixels], size, self.align_corners)
                places = np.stack([np.arange(len(pixels)), columns[pixels]], axis=1)
                weights = np.full(len(pixels), 1 / (len(self.scales) * (2 if self.flip else 1)))
                entries.append((pixels, weights, tf.gather_nd(resized, places).numpy()))
        return PixelLogits.of_entries(entries)

    def _logit_maps(self, image):
        """float32 [h, w, K] for every factor, and for its mirror image."""
        for factor in self.scales:
            resized = fitted(image, [int(side * factor) for side in self.scale])
            yield self._seen_logits(resized)
            if self.flip:
                yield tf.reverse(self._seen_logits(tf.reverse(resized, [1])), [1])

    def _seen_logits(self, resized):
        """float32 [h, w, K] for float32 [h, w, C] in units of the stored values."""
        normalized = self.images.normalize(resized)
        if self.crop_size is None:
            return self._predicted(normalized[None])[0]
        height, width = normalized.shape[:2]
        corners = [
            (top, left)
            for top in _origins(height, self.crop_size[0], self.stride[0])
            for left in _origins(width, self.crop_size[1], self.stride[1])
        ]
        rows, columns = min(height, self.crop_size[0]), min(width, self.crop_size[1])
        sums = np.zeros((height, width, self.num_classes), np.float32)
        counts = np.zeros((height, width, 1), np.float32)
        for first in range(0, len(corners), self.batch_size):
            batch = corners[first : first + self.batch_size]
            crops = tf.stack([normalized[top : top + rows, left : left + columns] for top, left in batch])
            for (top, left), logits in zip(batch, self._predicted(crops).numpy(), strict=True):
                sums[top : top + rows, left : left + columns] += logits
                counts[top : top + rows, left : left + columns] += 1
        return tf.convert_to_tensor(sums / counts)


def fitted(image: np.ndarray, scale: Sequence[int]) -> tf.Tensor:
    """An image [H, W, C] resized to fit into `scale` (long, short): float32 [h, w, C], of integers whole numbers.

    Bilinear with half-pixel centres, without antialiasing, as OpenCV resizes; of its fixed-point arithmetic a value may
    differ by 1.
    """
    resized = tf.image.resize(image, fitted_size(image.shape[:2], scale))
    return resized if image.dtype == np.float32 else tf.round(resized)


def fitted_size(size: Sequence[int], scale: Sequence[int]) -> tuple[int, int]:
    """(height, width) of an image of `size` (height, width) that is fitted into `scale` (long side, short side)."""
    factor = min(max(scale) / max(size), min(scale) / min(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def _origins(length, crop, stride):
    """Where crops begin along an axis, the last one flush with the end."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(0, min(index * stride, length - crop)) for index in range(count)]


def _resized_rows(logits, rows, size, align_corners):
    """Some rows of `logits` [h, w, K] resized to `size` (H, W): float32 [len(rows), W, K]."""
    source, target = logits.shape[0], size[0]
    if align_corners:
        position = rows * ((source - 1) / (target - 1)) if target > 1 else np.zeros(len(rows))
    else:
        position = np.maximum((rows + 0.5) * (source / target) - 0.5, 0)
    upper = np.minimum(np.floor(position).astype(np.int32), source - 1)
    lower = np.minimum(upper + 1, source - 1)
    weight = (position - upper).astype(np.float32)[:, None, None]
    above = tf.gather(logits, upper)
    blended = above + (tf.gather(logits, lower) - above) * weight
    return resize_bilinear(blended[None], (len(rows), size[1]), align_corners)[0]
