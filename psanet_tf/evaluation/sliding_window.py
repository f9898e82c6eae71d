"""The paper's evaluation protocol: overlapping crops, mirrored crops, several scales, in bounded memory."""

import itertools
import math

import numpy as np
import tensorflow as tf

from psanet_tf.data.normalization import normalize
from psanet_tf.evaluation.row_bands import RowBuffer, resize_rows

_BAND_BYTES = 64 * 2**20
MAX_CLASSES = 254  # label pictures hold one byte per pixel, and 255 marks ignored ones


class SlidingWindow:
    """Labels pictures of any size with a network that takes crops of one size.

    For each scale the picture is resized (long side ``round(scale * base_size)``; bilinear, half-pixel centres), padded
    with the mean colour up to the crop, and cut into crops at a distance of ``ceil(crop * stride_rate)``, the last one
    flush with the border. Softmax probabilities of a crop and its mirror image are averaged, those of overlapping
    crops too; the result is resized to the picture and averaged over the scales. That is what the scores of the paper
    (section 4) and of its public implementation are made with.

    Probabilities are computed row by row of crops and leave as bands of finished rows, so `labels` never holds the
    K-channel result of a whole picture.

    Args:
        predict: maps normalized crops, float32 [B, h, w, 3], to logits [B, h, w, K]; B varies up to `batch_size`.
        num_classes: K, at most 254.
        crop_size: (h, w) in pixels.
        base_size: long side, in pixels, of a picture at scale 1.
        scales: factors of `base_size`.
        flip: average with the mirrored crop.
        stride_rate: distance of neighbouring crops over the crop's size, in (0, 1].
        batch_size: pictures per call of `predict`; a crop and its mirror image are two.

    Raises:
        ValueError: an argument out of its range; the message names it.

    Example:
        >>> window = SlidingWindow(tf.function(model.inference()), 150, (465, 465), scales=(0.5, 1.0, 1.5))
        >>> probabilities = window(image)      # image: uint8 [H, W, 3] -> float32 [H, W, 150]
        >>> labels = window.labels(image)      # uint8 [H, W]
    """

    def __init__(
        self, predict, num_classes, crop_size, base_size=512, scales=(1.0,), flip=True, stride_rate=2 / 3, batch_size=4
    ):
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes must be 1 to {MAX_CLASSES}, got {num_classes}")
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
        self.predict = predict
        self.num_classes = num_classes
        self.crop_size = crop_size
        self.base_size = base_size
        self.scales = scales
        self.flip = flip
        self.stride_rate = stride_rate
        self.batch_size = batch_size

    def __call__(self, image):
        """Probabilities of a whole picture.

        Args:
            image: uint8 [H, W, 3], RGB.

        Returns:
            float32 NumPy array [H, W, K]; sums to 1 over K. For a large picture with many classes prefer `bands`.

        Raises:
            ValueError: `image` is of another shape or dtype, or `predict` answers with another shape.
        """
        image = checked_image(image)
        result = np.empty((*image.shape[:2], self.num_classes), np.float32)
        for first_row, probabilities in self.bands(image):
            result[first_row : first_row + probabilities.shape[0]] = probabilities
        return result

    def labels(self, image):
        """The most probable class of every pixel, uint8 NumPy array [H, W]; arguments and errors as of a call."""
        image = checked_image(image)
        result = np.empty(image.shape[:2], np.uint8)
        for first_row, probabilities in self.bands(image):
            result[first_row : first_row + probabilities.shape[0]] = tf.argmax(probabilities, -1, tf.int32)
        return result

    def bands(self, image):
        """Yields ``(first_row, probabilities)`` from top to bottom; probabilities are float32 tensors [rows, W, K]."""
        image = checked_image(image)
        height, width = image.shape[:2]
        buffers = []
        for scale in self.scales:
            size = _scaled_size(image.shape[:2], self.base_size, scale)
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
        """Yields float32 [rows, w, K] from top to bottom: the probabilities of the picture resized to `size`."""
        (height, width), (crop_height, crop_width) = size, self.crop_size
        resized = tf.image.resize(image, size)
        below, right = max(0, crop_height - height), max(0, crop_width - width)
        top, left = below // 2, right // 2
        # The mean colour is 0 once normalized.
        padded = tf.pad(normalize(resized), [[top, below - top], [left, right - left], [0, 0]])
        row_origins = _origins(height + below, crop_height, self.stride_rate)
        column_origins = _origins(width + right, crop_width, self.stride_rate)
        crops_over_row = _coverage(row_origins, crop_height, height + below)

        def finished(sums, start):
            rows = slice(max(start, top), min(start + sums.shape[0], top + height))
            sums = sums[rows.start - start : rows.stop - start]
            return sums / crops_over_row[rows, None, None]

        # Sums over the rows of crops seen so far, from `start` on.
        pending, start = None, 0
        for origin in row_origins:
            strip = self._strip(padded, origin, column_origins, slice(left, left + width))
            if pending is None:
                pending = strip
                continue
            chunk = finished(pending[: origin - start], start)
            if chunk.shape[0]:
                yield chunk
            shared = pending.shape[0] - (origin - start)
            pending = tf.concat([pending[origin - start :] + strip[:shared], strip[shared:]], axis=0)
            start = origin
        yield finished(pending, start)

    def _strip(self, padded, row, column_origins, columns):
        """float32 [h, columns, K]: average over the crops of one row, whose upper edge is `row`."""
        height, width = self.crop_size
        crops_per_call = max(1, self.batch_size // (2 if self.flip else 1))
        probabilities = []
        for first in range(0, len(column_origins), crops_per_call):
            origins = column_origins[first : first + crops_per_call]
            crops = tf.stack([padded[row : row + height, x : x + width] for x in origins])
            probabilities += self._crop_probabilities(crops)
        pieces = []
        edges = sorted({edge for x in column_origins for edge in (x, x + width)} | {columns.start, columns.stop})
        for begin, end in itertools.pairwise(edges):
            if begin < columns.start or end > columns.stop:
                continue
            over = [
                probability[:, begin - x : end - x]
                for x, probability in zip(column_origins, probabilities, strict=True)
                if x <= begin and end <= x + width
            ]
            pieces.append(over[0] if len(over) == 1 else tf.add_n(over) / len(over))
        return pieces[0] if len(pieces) == 1 else tf.concat(pieces, axis=1)

    def _crop_probabilities(self, crops):
        """One float32 [h, w, K] per crop of [B, h, w, 3]."""
        count = crops.shape[0]
        pictures = tf.concat([crops, tf.reverse(crops, [2])], axis=0) if self.flip else crops
        logits = tf.convert_to_tensor(self.predict(pictures))
        expected = (*pictures.shape[:3], self.num_classes)
        if tuple(logits.shape) != expected:
            raise ValueError(f"predict must give logits of shape {expected}, got {tuple(logits.shape)}")
        results = []
        # One crop at a time: the temporaries stay small.
        for index in range(count):
            probability = tf.nn.softmax(tf.cast(logits[index], tf.float32))
            if self.flip:
                mirrored = tf.nn.softmax(tf.cast(logits[count + index], tf.float32))
                probability = (probability + tf.reverse(mirrored, [1])) / 2
            results.append(probability)
        return results


def checked_image(image):
    """`image` as a NumPy array; ValueError if it is not uint8 [H, W, 3]."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"image must be uint8 [H, W, 3] (RGB), got {image.dtype} {list(image.shape)}")
    return image


def _scaled_size(size, base_size, scale):
    """(height, width) with the long side round(scale * base_size), halves to even as the public implementation has."""
    height, width = size
    long_side = max(1, round(scale * base_size))
    if height > width:
        return long_side, max(1, round(long_side / height * width))
    return max(1, round(long_side / width * height)), long_side


def _origins(length, crop, stride_rate):
    """Where crops begin along an axis: a fixed distance apart, the last one flush with the end."""
    stride = math.ceil(crop * stride_rate)
    count = math.ceil((length - crop) / stride) + 1
    return [min(index * stride, length - crop) for index in range(count)]


def _coverage(origins, crop, length):
    """float32 [length]: how many crops lie over each position."""
    coverage = np.zeros(length, np.float32)
    for origin in origins:
        coverage[origin : origin + crop] += 1
    return coverage
