"""A raster at another size, resampled window by window without seams."""

import math
from collections.abc import Iterator

import numpy as np

from psanet_tf.rasters.raster import PixelSize, Raster

_BLOCK = 256  # rows and columns of the result that are computed at a time
_LEAST_SCALE = 1 / 64


class ScaledRaster(Raster):
    """A raster resized: bilinear between half-pixel centres, of reductions a triangle as wide as the reduction.

    A pixel of the result is the weighted mean of the pixels with an image, and has an image where these weigh half or
    more; it does not depend on the window that it is read in.

    Args:
        raster: what is resized; closed with this one.
        scale: of rows and columns, at least 1/64.

    Raises:
        ValueError: `scale` out of its range, or nothing is left of the raster.
    """

    def __init__(self, raster: Raster, scale: float) -> None:
        if not _LEAST_SCALE <= scale < math.inf:
            raise ValueError(f"scale must be at least 1/64, got {scale:g}")
        self._raster = raster
        self.path, self.images = raster.path, raster.images
        self.size = tuple(max(1, round(side * scale)) for side in raster.size)
        self._ratios = [source / target for source, target in zip(raster.size, self.size, strict=True)]
        self.georeference = raster.georeference.scaled(1 / self._ratios[0], 1 / self._ratios[1])
        known = raster.pixel_size
        self.pixel_size = known and PixelSize(known.length / scale, known.unit)

    def read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.empty((height, width, self.images.channels), self.images.dtype)
        valid = np.empty((height, width), bool)
        for rows in _blocks(top, height):
            for columns in _blocks(left, width):
                place = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
                pixels[place], valid[place] = self._block(rows, columns)
        return pixels, valid

    def close(self) -> None:
        self._raster.close()

    def _block(self, rows, columns):
        (first_row, down), (first_column, across) = (
            _weights(target, ratio, length)
            for target, ratio, length in zip((rows, columns), self._ratios, self._raster.size, strict=True)
        )
        pixels, valid = self._raster.read(first_row, first_column, down.shape[1], across.shape[1])
        weight = down @ valid @ across.T
        has_image = weight >= 0.5
        masked = np.where(valid[..., None], pixels, 0).astype(np.float32)
        sums = np.moveaxis(down @ np.moveaxis(masked, -1, 0) @ across.T, 0, -1)
        values = sums / np.where(has_image, weight, 1)[..., None]
        dtype = np.dtype(self.images.dtype)
        return (values if dtype.kind == "f" else np.round(values)).astype(dtype), has_image


def _blocks(start: int, length: int) -> Iterator[slice]:
    for first in range(start, start + length, _BLOCK):
        yield slice(first, min(first + _BLOCK, start + length))


def _weights(target, ratio, length):
    """(first source pixel, float32 [targets, sources]) along one axis; the weights of a target sum to 1."""
    centers = (np.arange(target.start, target.stop) + 0.5) * ratio - 0.5
    reach = max(1.0, ratio)
    first = max(0, math.floor(centers[0] - reach))
    stop = min(length, math.ceil(centers[-1] + reach) + 1)
    distances = np.abs(np.arange(first, stop) - centers[:, None]) / reach
    weights = np.maximum(0, 1 - distances)
    return first, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
