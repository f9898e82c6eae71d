"""Legends: coloured squares with class names."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_TEXT = (20, 20, 20)
_PAPER = (255, 255, 255)
_PANEL_OPACITY = 200
_LARGEST_PANEL_SHARE = 0.3  # of the image's area


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all images, at `size` pixels."""
    return ImageFont.load_default(size)


def draw_legend_panel(
    image: Image.Image, shares: Sequence[tuple[int, float]], colors: np.ndarray, class_names: Sequence[str]
) -> None:
    """Draws a legend into the lower left corner; names as many classes as fit into a third of the image.

    Args:
        image: PIL RGB image, drawn into.
        shares: [(class, share), ...], most important first.
        colors: [K, 3].
        class_names: K names.
    """
    size = max(10, min(18, min(image.size) // 28))
    line, square, margin = round(size * 1.35), size, max(3, size // 3)
    entries = [(tuple(int(value) for value in colors[index]), class_names[index]) for index, _ in shares]
    for count in range(len(entries), 0, -1):
        shown = entries[:count]
        if count < len(entries):
            shown = [*shown, (None, f"+ {len(entries) - count} more")]
        width = round(max(font(size).getlength(name) for _, name in shown)) + square + 3 * margin
        height = line * len(shown) + 2 * margin
        fits = width <= image.width and height <= image.height
        if fits and width * height <= _LARGEST_PANEL_SHARE * image.width * image.height:
            break
    else:
        return
    corner = (0, image.height - height)
    paper = Image.new("L", (width, height), _PANEL_OPACITY)
    image.paste(_PAPER, (*corner, width, image.height), mask=paper)
    draw = ImageDraw.Draw(image)
    for row, (color, name) in enumerate(shown):
        top = corner[1] + margin + row * line
        _draw_entry(draw, (margin, top), color, name, size, line)


def legend_strip(
    shares: Sequence[tuple[int, float]], colors: np.ndarray, class_names: Sequence[str], width: int, text_size: int = 13
) -> Image.Image:
    """A white strip that names all classes in `shares`, with the share of pixels of each.

    Args:
        shares: [(class, share), ...].
        colors: [K, 3].
        class_names: K names.
        width: of the strip, in pixels.
        text_size: in pixels.

    Returns:
        PIL RGB image, `width` wide and as high as it takes.
    """
    line, margin = round(text_size * 1.6), text_size // 2
    entries = [
        (tuple(int(value) for value in colors[index]), f"{class_names[index]} {100 * share:.1f}%")
        for index, share in shares
    ]
    text_width = max((font(text_size).getlength(name) for _, name in entries), default=0)
    column = round(text_width) + text_size + 4 * margin
    columns = max(1, (width - margin) // column)
    rows = -(-len(entries) // columns)
    strip = Image.new("RGB", (width, rows * line + 2 * margin), _PAPER)
    draw = ImageDraw.Draw(strip)
    for index, (color, name) in enumerate(entries):
        row, place = divmod(index, columns)
        _draw_entry(draw, (margin + place * column, margin + row * line), color, name, text_size, line)
    return strip


def _draw_entry(draw, corner, color, name, size, line):
    x, y = corner
    middle = y + line // 2
    if color is not None:
        draw.rectangle((x, middle - size // 2, x + size - 1, middle - size // 2 + size - 1), fill=color, outline=_TEXT)
        x += size + max(3, size // 3)
    draw.text((x, middle), name, fill=_TEXT, font=font(size), anchor="lm")
