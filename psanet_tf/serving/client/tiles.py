"""Images too large for one request, labelled tile by tile."""

import itertools
from collections.abc import Callable

import numpy as np

from psanet_tf.progress import track

TILE_SIZE = 2048
OVERLAP = 256


def label_by_tiles(
    image: np.ndarray,
    label: Callable[[np.ndarray], np.ndarray],
    tile_size: int = TILE_SIZE,
    overlap: int = OVERLAP,
) -> np.ndarray:
    """Labels an image by overlapping tiles; each pixel takes the answer of the tile in which it lies deepest.

    Args:
        image: [H, W, C].
        label: [h, w, C] -> uint8 [h, w].
        tile_size: longest side of a tile.
        overlap: pixels that neighbouring tiles share, at most half a tile; half of them belong to either.

    Returns:
        uint8 [H, W].
    """
    overlap = min(overlap, tile_size // 2)
    result = np.empty(image.shape[:2], np.uint8)
    rows, columns = (_spans(length, tile_size, overlap) for length in image.shape[:2])
    tiles = [(row, column) for row in rows for column in columns]
    for (row, kept_rows), (column, kept_columns) in track(tiles, "labelling tiles"):
        labels = label(image[row, column])
        inner = (_within(kept_rows, row), _within(kept_columns, column))
        result[kept_rows, kept_columns] = labels[inner]
    return result


def _spans(length, tile_size, overlap):
    """[(slice of the tile, slice of the pixels whose answer it gives)] along one axis."""
    if length <= tile_size:
        return [(slice(0, length), slice(0, length))]
    count = -(-(length - overlap) // (tile_size - overlap))
    starts = [round(index * (length - tile_size) / (count - 1)) for index in range(count)]
    middles = [(first + tile_size + second) // 2 for first, second in itertools.pairwise(starts)]
    edges = [0, *middles, length]
    return [
        (slice(start, start + tile_size), slice(first, last))
        for start, first, last in zip(starts, edges[:-1], edges[1:], strict=True)
    ]


def _within(kept, tile):
    return slice(kept.start - tile.start, kept.stop - tile.start)
