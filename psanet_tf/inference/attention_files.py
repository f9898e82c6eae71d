"""Attention maps as images and as a page."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from psanet_tf.data.readers import read_image
from psanet_tf.files import atomic_file
from psanet_tf.inference.attention import AttentionMaps, grid_points
from psanet_tf.inference.attention_page import attention_view
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.visualization.heatmap import heat_colors, heat_overlay, mark_point
from psanet_tf.visualization.pages import write_page
from psanet_tf.visualization.sheet import image_sheet

_TITLES = {"collect": "collect: where it gathers from", "distribute": "distribute: whom it informs"}
_GRID_ROWS, _GRID_COLUMNS = 3, 4
_CELL_WIDTH = 480


def write_attention(
    segmenter: Segmenter,
    image_path: str | os.PathLike,
    out: str | os.PathLike,
    points: Sequence[tuple[float, float]] = (),
    grid: bool = False,
) -> tuple[Path, Path]:
    """Writes a sheet of heat maps and a page on which every point of the image can be hovered.

    Args:
        segmenter: `Segmenter` of a network with attention.
        image_path: image.
        out: folder; gets ``NAME_attention.png`` and ``NAME_attention.html``.
        points: ((x, y), ...), one row of the sheet each.
        grid: show a grid of 3 x 4 points instead.

    Returns:
        (path of the sheet, path of the page).

    Raises:
        ValueError: no points, a point outside of the image, a network without attention, or no image.
    """
    if bool(points) == bool(grid):
        raise ValueError("give either points, such as --point 310,220, or --grid")
    image = read_image(image_path, segmenter.images)
    points = grid_points(image.shape[:2], _GRID_ROWS, _GRID_COLUMNS) if grid else points
    maps = segmenter.attention(image, points)
    out, name = Path(out), Path(image_path).stem
    sheet, page = out / f"{name}_attention.png", out / f"{name}_attention.html"
    with atomic_file(sheet) as temporary:
        Image.fromarray(attention_sheet(segmenter.images.picture(image), maps)).save(temporary)
    view = attention_view(segmenter.attention, image, name, segmenter.images)
    write_page(page, "attention.html.j2", views=[view], heat_colors=heat_colors().tolist())
    return sheet, page


def attention_sheet(image: np.ndarray, maps: AttentionMaps) -> np.ndarray:
    """One row per point: the image with the point, and its maps laid over the image, directions side by side.

    Args:
        image: uint8 [H, W, 3].
        maps: `AttentionMaps` of it.

    Returns:
        uint8 [height, width, 3].
    """
    directions = maps.directions()
    rows, captions = [], []
    for index, point in enumerate(maps.points):
        marked = Image.fromarray(image)
        mark_point(marked, point)
        heats = [maps.placement.to_image(values[index : index + 1])[0] for values in directions.values()]
        rows.append([np.asarray(marked), *(heat_overlay(image, heat, point) for heat in heats)])
        peaks = ", ".join(f"{name} {values[index].max():.2g}" for name, values in directions.items())
        even = 1 / np.prod(maps.placement.map_size)
        captions.append(f"point {point[0]:g},{point[1]:g}; largest weights: {peaks} (all even: {even:.2g})")
    titles = ["image", *(_TITLES[name] for name in directions)]
    return image_sheet(rows, titles, captions, _CELL_WIDTH)
