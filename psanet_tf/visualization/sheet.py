"""Several images on one sheet, with titles and captions."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from psanet_tf.visualization.legend import font

_GAP = 8
_TEXT_SIZE = 14
_TITLE_HEIGHT = 22
_PAPER = (255, 255, 255)
_TEXT = (20, 20, 20)


def image_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    column_titles: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    cell_width: int | None = None,
    footer: Image.Image | None = None,
) -> np.ndarray:
    """Lays images out in a grid.

    Args:
        rows: list of rows, each a list of uint8 [H, W, 3] images. The images of a row may differ in size; they
            are brought to the cell's width, and aligned at the top.
        column_titles: one text per column.
        captions: one text per row, written under it.
        cell_width: width of a cell in pixels; None keeps the width of the widest image.
        footer: PIL image under everything, such as a legend.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: no images.
    """
    if not rows or not all(rows):
        raise ValueError("a sheet needs at least one image in every row")
    width = cell_width or max(image.shape[1] for row in rows for image in row)
    cells = [[_fitted(image, width) for image in row] for row in rows]
    columns = max(len(row) for row in cells)
    caption_height = _TITLE_HEIGHT if captions else 0
    row_heights = [max(cell.height for cell in row) + caption_height for row in cells]
    top = _GAP + (_TITLE_HEIGHT if column_titles else 0)
    height = top + sum(row_heights) + _GAP * len(rows) + (footer.height if footer else 0)
    total_width = max(_GAP + columns * (width + _GAP), footer.width if footer else 0)
    sheet = Image.new("RGB", (total_width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(column_titles or ()):
        _text(draw, (_GAP + column * (width + _GAP), _GAP), title, width)
    for index, row in enumerate(cells):
        for column, cell in enumerate(row):
            sheet.paste(cell, (_GAP + column * (width + _GAP), top))
        if captions:
            _text(draw, (_GAP, top + row_heights[index] - caption_height + 2), captions[index], total_width - 2 * _GAP)
        top += row_heights[index] + _GAP
    if footer:
        sheet.paste(footer, (0, top))
    return np.asarray(sheet)


def _fitted(image, width):
    drawn = Image.fromarray(image)
    if drawn.width == width:
        return drawn
    height = max(1, round(drawn.height * width / drawn.width))
    # Enlarged pixels stay squares: nothing is invented between labels.
    method = Image.Resampling.LANCZOS if drawn.width > width else Image.Resampling.NEAREST
    return drawn.resize((width, height), method)


def _text(draw, corner, text, width):
    """Writes `text`, shortened to `width` pixels."""
    face = font(_TEXT_SIZE)
    if face.getlength(text) > width:
        while text and face.getlength(text + "...") > width:
            text = text[:-1]
        text += "..."
    draw.text(corner, text, fill=_TEXT, font=face)
