"""Bilinear resizing of an image that comes from top to bottom and is never there as a whole."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf


class RowBuffer:
    """Holds the rows of an image that are needed now.

    Args:
        chunks: iterator over tensors [rows, w, K], top to bottom.
        size: (height, width) of the whole image.
    """

    def __init__(self, chunks: Iterable[tf.Tensor], size: tuple[int, int]) -> None:
        self.size = size
        self._chunks = iter(chunks)
        self._held = []  # (first row, tensor)
        self._end = 0

    def rows(self, first: int, stop: int) -> tf.Tensor:
        """Tensor [stop - first, w, K]; rows above `first` are given up, so `first` must not decrease."""
        while self._end < stop:
            # Copies of what is still needed, so that the rest is freed before the next chunk is computed.
            self._held = [(max(start, first), self._from(first, start, chunk)) for start, chunk in self._needed(first)]
            chunk = next(self._chunks)
            self._held.append((self._end, chunk))
            self._end += chunk.shape[0]
        parts = [chunk[max(0, first - start) : stop - start] for start, chunk in self._needed(first) if start < stop]
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)

    def _needed(self, first):
        self._held = [(start, chunk) for start, chunk in self._held if start + chunk.shape[0] > first]
        return self._held

    @staticmethod
    def _from(first, start, chunk):
        return chunk[first - start :] + 0 if first > start else chunk


def resize_rows(buffer: RowBuffer, first_row: int, rows: int, target_size: tuple[int, int]) -> tf.Tensor:
    """Rows of the bilinear, half-pixel-centred enlargement or reduction of the image in `buffer`.

    Args:
        buffer: RowBuffer of an image [h, w, K].
        first_row: first row of the result within the resized image.
        rows: how many rows.
        target_size: (height, width) of the whole resized image.

    Returns:
        float32 tensor [rows, width, K].
    """
    source_height = buffer.size[0]
    height, width = target_size
    position = (np.arange(first_row, first_row + rows) + 0.5) * (source_height / height) - 0.5
    above = np.floor(position)
    weight = (position - above).astype(np.float32)[:, None, None]
    upper = np.clip(above, 0, source_height - 1).astype(np.int32)
    lower = np.clip(above + 1, 0, source_height - 1).astype(np.int32)
    source = buffer.rows(int(upper[0]), int(lower[-1]) + 1)
    top = tf.gather(source, upper - upper[0])
    result = top + (tf.gather(source, lower - upper[0]) - top) * weight if source_height != height else top
    return tf.image.resize(result[None], (rows, width))[0]
