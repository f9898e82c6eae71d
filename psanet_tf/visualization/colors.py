"""Label maps as colours: RGB images and palette PNGs."""

import os

import numpy as np
from PIL import Image

from psanet_tf.files import atomic_file

# PASCAL VOC's own colour for pixels that do not count.
IGNORED_COLOR = (224, 224, 192)


def colorize(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """RGB image of a label map.

    Args:
        labels: integer [H, W]; class indices, 255 for ignored pixels.
        colors: uint8 [K, 3], RGB.

    Returns:
        uint8 [H, W, 3]; ignored pixels are `IGNORED_COLOR`.

    Raises:
        ValueError: `labels` is not two-dimensional or holds a value that is neither a class nor 255.
    """
    return palette(colors)[_checked_labels(labels, len(colors))]


def palette(colors: np.ndarray) -> np.ndarray:
    """uint8 [256, 3]: a class's colour at its index, `IGNORED_COLOR` at 255, black elsewhere."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    table[255] = IGNORED_COLOR
    return table


def save_label_png(path: str | os.PathLike, labels: np.ndarray, colors: np.ndarray | None = None) -> None:
    """Writes a label map as PNG, one byte per pixel.

    Args:
        path: where to.
        labels: integer [H, W]; class indices, 255 for ignored pixels.
        colors: uint8 [K, 3] makes a palette PNG: viewers show colours, readers of indices get `labels` back.
            None makes a grey one that holds the values.

    Raises:
        ValueError: as `colorize`.
    """
    labels = _checked_labels(labels, 256 if colors is None else len(colors))
    image = Image.fromarray(labels)
    if colors is not None:
        image.putpalette(palette(colors).tobytes(), "RGB")
    with atomic_file(path, suffix=".png") as temporary:
        image.save(temporary, format="PNG")


def _checked_labels(labels, num_classes):
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers [H, W], got {labels.dtype} {list(labels.shape)}")
    for row in labels:
        known = ((row >= 0) & (row < num_classes)) | (row == 255)
        if not known.all():
            raise ValueError(f"labels hold {row[~known][0]}, but there are {num_classes} classes and 255 for ignored")
    return labels.astype(np.uint8, copy=False)
