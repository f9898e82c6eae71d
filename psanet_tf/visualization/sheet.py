"""Several pictures on one sheet, with titles and captions."""

import numpy as np
from PIL import Image, ImageDraw

from psanet_tf.visualization.legend import font

_GAP = 8
_TEXT_SIZE = 14
_TITLE_HEIGHT = 22
_PAPER = (255, 255, 255)
_TEXT = (20, 20, 20)


def picture_sheet(rows, column_titles=None, captions=None, cell_width=None, footer=None):
    """Lays pictures out in a grid.

    Args:
        rows: list of rows, each a list of uint8 [H, W, 3] pictures. The pictures of a row may differ in size; they
            are brought to the cell's width, and aligned at the top.
        column_titles: one text per column.
        captions: one text per row, written under it.
        cell_width: width of a cell in pixels; None keeps the width of the widest picture.
        footer: PIL image under everything, such as a legend.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: no pictures.
    """
    if not rows or not all(rows):
        raise ValueError("a sheet needs at least one picture in every row")
    width = cell_width or max(picture.shape[1] for row in rows for picture in row)
    cells = [[_fitted(picture, width) for picture in row] for row in rows]
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


def _fitted(picture, width):
    image = Image.fromarray(picture)
    if image.width == width:
        return image
    height = max(1, round(image.height * width / image.width))
    # Enlarged pixels stay squares: nothing is invented between labels.
    method = Image.Resampling.LANCZOS if image.width > width else Image.Resampling.NEAREST
    return image.resize((width, height), method)


def _text(draw, corner, text, width):
    """Writes `text`, shortened to `width` pixels."""
    face = font(_TEXT_SIZE)
    if face.getlength(text) > width:
        while text and face.getlength(text + "...") > width:
            text = text[:-1]
        text += "..."
    draw.text(corner, text, fill=_TEXT, font=face)
