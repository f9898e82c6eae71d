"""The paper's evaluation protocol: overlapping crops, mirrored crops, several scales, in bounded memory."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.inference.labeler import Labeler
from psanet_tf.inference.pixel_logits import PixelLogits, bilinear_neighbours
from psanet_tf.inference.row_bands import RowBuffer, resize_rows

_BAND_BYTES = 64 * 2**20


class SlidingWindow(Labeler):
    """Labels images of any size with a network that takes crops of one size.

    For each scale the image is resized (long side ``round(scale * base_size)``; bilinear, half-pixel centres), padded
    with the mean colour up to the crop, and cut into crops at a distance of ``ceil(crop * stride_rate)``, the last one
    flush with the border. Softmax probabilities of a crop and its mirror image are averaged, those of overlapping
    crops too; the result is resized to the image and averaged over the scales. That is what the scores of the paper
    (section 4) and of its public implementation are made with.

    Probabilities are computed row by row of crops and leave as bands of finished rows, so `labels` never holds the
    K-channel result of a whole image.

    Args:
        predict: maps normalized crops, float32 [B, h, w, C], to logits [B, h, w, K]; B varies up to `batch_size`.
        num_classes: K, at most 254.
        crop_size: (h, w) in pixels.
        base_size: long side, in pixels, of an image at scale 1.
        scales: factors of `base_size`.
        flip: average with the mirrored crop.
        stride_rate: distance of neighbouring crops over the crop's size, in (0, 1].
        batch_size: images per call of `predict`; a crop and its mirror image are two. A GPU does more at once, memory
            permitting.
        images: `ImageFormat` of what is labelled.

    Raises:
        ValueError: an argument out of its range; the message names it.

    Example:
        >>> window = SlidingWindow(tf.function(model.inference()), 150, (465, 465), scales=(0.5, 1.0, 1.5))
        >>> probabilities = window(image)      # image: uint8 [H, W, 3] -> float32 [H, W, 150]
        >>> labels = window.labels(image)      # uint8 [H, W]
    """

    def __init__(
        self,
        predict: Callable[[tf.Tensor], tf.Tensor],
        num_classes: int,
        crop_size: Sequence[int],
        base_size: int = 512,
        scales: Sequence[float] = (1.0,),
        flip: bool = True,
        stride_rate: float = 2 / 3,
        batch_size: int = 2,
        images: ImageFormat = PHOTOGRAPHS,
    ) -> None:
        super().__init__(predict, num_classes, images)
        crop_size = tuple(int(size) for size in crop_size)
        if len(crop_size) != 2 or min(crop_size) < 1:
            raise ValueError(f"crop_size must be two positive numbers (rows, columns), got {crop_size}")
        if base_size < 1:
            raise ValueError(f"base_size must be at least 1 pixel, got {base_size}")
        scales = tuple(float(scale) for scale in scales)
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales must be one or more positive numbers, got {scales}")
        if not 0 < stride_rate <= 1:
            raise ValueError(f"stride_rate must be above 0 and at most 1, got {stride_rate}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.crop_size = crop_size
        self.base_size = base_size
        self.scales = scales
        self.flip = flip
        self.stride_rate = stride_rate
        self.batch_size = batch_size

    def bands(self, image: np.ndarray) -> Iterator[tuple[int, tf.Tensor]]:
        """Yields ``(first_row, probabilities)`` from top to bottom; probabilities are float32 tensors [rows, W, K]."""
        image = self.images.checked(image)
        height, width = image.shape[:2]
        buffers = []
        for scale in self.scales:
            size = scaled_size(image.shape[:2], self.base_size, scale)
            buffers.append(RowBuffer(self._rows_at(image, size), size))
        rows_per_band = max(1, _BAND_BYTES // (width * self.num_classes * 4))
        for first_row in range(0, height, rows_per_band):
            rows = min(rows_per_band, height - first_row)
            total = None
            for buffer in buffers:
                band = resize_rows(buffer, first_row, rows, (height, width))
                total = band if total is None else total + band
            yield first_row, total / len(self.scales)

    def _rows_at(self, image, size):
        """Yields float32 [rows, w, K] from top to bottom: the probabilities of the image resized to `size`."""
        height, width = size
        padded, (top, left), (row_origins, column_origins) = self._crops_of(image, size)
        counts = self._coverages(row_origins, column_origins)
        unfinished = None  # sums over the crops so far, of the rows that the next crops cover too
        for origin, next_origin in itertools.pairwise([*row_origins, padded.shape[0]]):
            sums = _add_overlapping(self._strip(padded, origin, column_origins), unfinished, axis=0)
            # New arrays, not views, and none that outlives its use: while this generator waits, all that it keeps in
            # memory are the unfinished rows.
            unfinished = sums[next_origin - origin :] + 0
            begin, end = max(origin, top), min(next_origin, top + height)
            if begin < end:
                sums = sums[begin - origin : end - origin, left : left + width]
                finished = [sums / counts[begin:end, left : left + width]]
                del sums
                yield finished.pop()

    def pixel_logits(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> PixelLogits:
        image = self.images.checked(image)
        entries = []
        for scale in self.scales:
            entries += self._entries_at(image, scaled_size(image.shape[:2], self.base_size, scale), rows, columns)
        return PixelLogits.of_entries(entries)

    def _entries_at(self, image, size, rows, columns):
        """Yields (pixels, weights, logits) of the image resized to `size`, as `PixelLogits.of_entries` takes them."""
        padded, (top, left), (row_origins, column_origins) = self._crops_of(image, size)
        along = [bilinear_neighbours(*axis) for axis in zip((rows, columns), image.shape[:2], size, strict=True)]
        near = [(y + top, x + left, down * across) for y, down in along[0] for x, across in along[1]]
        y, x, weight = (np.concatenate(parts) for parts in zip(*near, strict=True))
        pixel = np.tile(np.arange(len(rows)), len(near))
        counts = weight > 0
        y, x, pixel = y[counts], x[counts], pixel[counts]
        summed = self._coverages(row_origins, column_origins)[y, x, 0]
        weight = weight[counts] / summed / len(self.scales)
        height, width = self.crop_size
        seen = []  # (row, column, indices of the pixels) of the crops that have any
        for row, column in itertools.product(row_origins, column_origins):
            inside = np.flatnonzero((row <= y) & (y < row + height) & (column <= x) & (x < column + width))
            if len(inside):
                seen.append((row, column, inside))
        for first in range(0, len(seen), self.crops_per_call):
            chosen = seen[first : first + self.crops_per_call]
            logits = self._logits(tf.stack([padded[row : row + height, x : x + width] for row, x, _ in chosen]))
            for index, (row, column, inside) in enumerate(chosen):
                down, across = y[inside] - row, x[inside] - column
                for mirrored in range(self.images_per_crop):
                    places = np.stack([down, width - 1 - across if mirrored else across], axis=1)
                    values = tf.gather_nd(logits[mirrored * len(chosen) + index], places).numpy()
                    yield pixel[inside], weight[inside], values

    def _crops_of(self, image, size):
        """The image resized to `size`, normalized and padded, its (top, left) in it, and where crops begin by axis."""
        (height, width), (crop_height, crop_width) = size, self.crop_size
        below, right = max(0, crop_height - height), max(0, crop_width - width)
        top, left = below // 2, right // 2
        # The mean colour is 0 once normalized.
        padding = [[top, below - top], [left, right - left], [0, 0]]
        padded = tf.pad(self.images.normalize(tf.image.resize(image, size)), padding)
        return padded, (top, left), self.origins((height + below, width + right))

    def origins(self, size: Sequence[int]) -> tuple[list[int], list[int]]:
        """Where crops begin along rows and columns of a padded image of `size`, which holds a crop at least."""
        rows, columns = (crop_origins(*axis, self.stride_rate) for axis in zip(size, self.crop_size, strict=True))
        return rows, columns

    def _coverages(self, row_origins, column_origins):
        """float32 [h, w, 1]: how many probabilities are summed at each position."""
        rows, columns = (coverage(*axis) for axis in zip((row_origins, column_origins), self.crop_size, strict=True))
        return rows[:, None, None] * columns[:, None] * np.float32(self.images_per_crop)

    def _strip(self, padded, row, column_origins):
        """float32 [h, w, K]: sum over the crops of one row, whose upper edge is `row`."""
        finished, unfinished = [], None
        next_origins = [*column_origins[1:], padded.shape[1]]
        probabilities = self._row_probabilities(padded, row, column_origins)
        for origin, next_origin, probability in zip(column_origins, next_origins, probabilities, strict=True):
            sums = _add_overlapping(probability, unfinished, axis=1)
            finished.append(sums[:, : next_origin - origin])
            unfinished = sums[:, next_origin - origin :]
        return finished[0] if len(finished) == 1 else tf.concat(finished, axis=1)

    def _row_probabilities(self, padded, row, column_origins):
        """Yields float32 [h, w, K] for the crops of one row, from left to right."""
        height, width = self.crop_size
        for first in range(0, len(column_origins), self.crops_per_call):
            origins = column_origins[first : first + self.crops_per_call]
            crops = tf.stack([padded[row : row + height, x : x + width] for x in origins])
            yield from self.crop_probabilities(crops)

    @property
    def images_per_crop(self) -> int:
        """2 where the mirror image counts, else 1."""
        return 2 if self.flip else 1

    @property
    def crops_per_call(self) -> int:
        """Crops, without their mirror images, that `crop_probabilities` should be given at a time."""
        return max(1, self.batch_size // self.images_per_crop)

    def crop_probabilities(self, crops: tf.Tensor) -> Iterator[tf.Tensor]:
        """What is summed where crops overlap.

        Args:
            crops: float32 [B, h, w, C], normalized.

        Yields:
            float32 [h, w, K] for each crop: its probabilities, plus those of its mirror image where both count.
        """
        count, logits = crops.shape[0], self._logits(crops)
        # One crop at a time: the temporaries stay small.
        for index in range(count):
            probability = tf.nn.softmax(logits[index])
            if self.flip:
                mirrored = tf.nn.softmax(logits[count + index])
                probability += tf.reverse(mirrored, [1])
            yield probability

    def _logits(self, crops):
        """float32 logits of [B, h, w, C], followed by those of their mirror images where both count."""
        return self._predicted(tf.concat([crops, tf.reverse(crops, [2])], axis=0) if self.flip else crops)


def scaled_size(size: Sequence[int], base_size: int, scale: float) -> tuple[int, int]:
    """(height, width) with the long side round(scale * base_size), halves to even as the public implementation has."""
    height, width = size
    long_side = max(1, round(scale * base_size))
    if height > width:
        return long_side, max(1, round(long_side / height * width))
    return max(1, round(long_side / width * height)), long_side


def crop_origins(length: int, crop: int, stride_rate: float) -> list[int]:
    """Where crops begin along an axis: a fixed distance apart, the last one flush with the end."""
    stride = math.ceil(crop * stride_rate)
    count = math.ceil((length - crop) / stride) + 1
    return [min(index * stride, length - crop) for index in range(count)]


def coverage(origins: Sequence[int], crop: int) -> np.ndarray:
    """float32 [length]: how many crops lie over each position."""
    counts = np.zeros(origins[-1] + crop, np.float32)
    for origin in origins:
        counts[origin : origin + crop] += 1
    return counts


def _add_overlapping(array, earlier, axis):
    """`array` with `earlier`, shorter along `axis`, added to its beginning; None adds nothing."""
    if earlier is None or earlier.shape[axis] == 0:
        return array
    overlap, rest = tf.split(array, [earlier.shape[axis], array.shape[axis] - earlier.shape[axis]], axis=axis)
    return tf.concat([earlier + overlap, rest], axis=axis)
