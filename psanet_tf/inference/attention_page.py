"""Attention of every point of a grid, precomputed for pages where one hovers over an image."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.inference.attention import AttentionMaps, grid_points
from psanet_tf.visualization.heatmap import attention_atlas
from psanet_tf.visualization.pages import data_uri, fitted

_LONGEST_SIDE = 24  # points along the longer side of the grid
_TILE_SIDE = 33  # pixels along the longer side of a stored map
_IMAGE_WIDTH = 560


def attention_view(
    attention: Callable[[np.ndarray, Sequence[tuple[float, float]]], AttentionMaps],
    image: np.ndarray,
    name: str,
    images: ImageFormat = PHOTOGRAPHS,
) -> dict[str, Any]:
    """What the page template needs to show an image's attention.

    Args:
        attention: (image, points) -> AttentionMaps, such as `Segmenter.attention`.
        image: [H, W, C].
        name: of the image.
        images: `ImageFormat` of the image.

    Returns:
        dict for JSON: the image, and per direction an atlas of heat maps, one for each point of a grid.
    """
    rows, columns = _proportioned(image.shape[:2], _LONGEST_SIDE)
    maps = attention(image, grid_points(image.shape[:2], rows, columns))
    tile_height, tile_width = _proportioned(image.shape[:2], _TILE_SIDE)
    small = dataclasses.replace(maps.placement, image_size=(tile_height, tile_width))
    return {
        "name": name,
        "image": data_uri(fitted(images.picture(image), _IMAGE_WIDTH), quality=88),
        "rows": rows,
        "columns": columns,
        "tile_height": tile_height,
        "tile_width": tile_width,
        "atlases": {
            direction: data_uri(attention_atlas(small.to_image(values), rows, columns))
            for direction, values in maps.directions().items()
        },
        "peaks": {
            direction: [float(f"{peak:.3g}") for peak in values.max(axis=(1, 2))]
            for direction, values in maps.directions().items()
        },
    }


def _proportioned(size, longest):
    """(rows, columns) of an image's proportions, the longer one `longest`."""
    height, width = size
    return max(1, round(longest * height / max(size))), max(1, round(longest * width / max(size)))
