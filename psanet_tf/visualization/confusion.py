"""The confusion matrix as an image."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from psanet_tf.visualization.legend import font

_INK = (20, 20, 20)
_LOW, _HIGH = np.array([255, 255, 255]), np.array([8, 48, 107])
_LARGEST_SIDE = 1400


def confusion_image(confusion: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Draws a confusion matrix, each row scaled to the true class's pixels.

    Args:
        confusion: [K, K] counts; rows are true classes, columns predicted ones.
        class_names: K names.

    Returns:
        uint8 [height, width, 3]. Cells of up to 30 classes show percentages. Rows of classes that do not occur are
        grey.
    """
    confusion = np.asarray(confusion, np.float64)
    count = len(class_names)
    if confusion.shape != (count, count):
        raise ValueError(f"{count} class names need a confusion matrix of [{count}, {count}], got {confusion.shape}")
    targets = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(targets, 1)
    cell = int(np.clip(_LARGEST_SIDE // count, 9, 44))
    text = int(np.clip(cell * 0.75, 8, 13))
    margin = round(max(font(text).getlength(name) for name in class_names)) + 10
    top = margin + 24
    side = count * cell
    colors = _LOW + shares[..., None] * (_HIGH - _LOW)
    colors[(targets == 0)[:, 0]] = 225
    matrix = Image.fromarray(np.kron(colors.astype(np.uint8), np.ones((cell, cell, 1), np.uint8)))
    image = Image.new("RGB", (margin + 24 + side + 10, top + side + 10), (255, 255, 255))
    left = margin + 24
    image.paste(matrix, (left, top))
    draw = ImageDraw.Draw(image)
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=_INK)
    draw.text((left + side / 2, 4), "predicted class", fill=_INK, font=font(13), anchor="mt")
    _rotated_text(image, "true class", (4, top + side // 2), 13, centered=True)
    for index, name in enumerate(class_names):
        middle = index * cell + cell / 2
        draw.text((left - 5, top + middle), name, fill=_INK, font=font(text), anchor="rm")
        _rotated_text(image, name, (round(left + middle), top - 5), text)
    if count <= 30:
        _write_percentages(draw, shares, targets, (left, top), cell)
    return np.asarray(image)


def _write_percentages(draw, shares, targets, corner, cell):
    for row, column in np.ndindex(shares.shape):
        share = shares[row, column]
        if targets[row, 0] and share >= 0.005:
            color = (255, 255, 255) if share > 0.5 else _INK
            place = corner[0] + (column + 0.5) * cell, corner[1] + (row + 0.5) * cell
            draw.text(place, f"{100 * share:.0f}", fill=color, font=font(11), anchor="mm")


def _rotated_text(image, text, place, size, centered=False):
    """Text that reads upwards: its end at the bottom middle `place`, or its centre at the left middle."""
    width, height = round(font(size).getlength(text)) + 2, round(size * 1.4)
    label = Image.new("L", (width, height), 0)
    ImageDraw.Draw(label).text((1, height / 2), text, fill=255, font=font(size), anchor="lm")
    label = label.rotate(90, expand=True)
    corner = (
        (place[0], place[1] - label.height // 2) if centered else (place[0] - label.width // 2, place[1] - label.height)
    )
    image.paste(_INK, corner, mask=label)
