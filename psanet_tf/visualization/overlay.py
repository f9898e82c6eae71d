"""An image with its label map laid over it, and legends that name the classes in it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from psanet_tf.visualization.colors import colorize
from psanet_tf.visualization.legend import draw_legend_panel


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    colors: np.ndarray,
    class_names: Sequence[str] | None = None,
    opacity: float = 0.55,
) -> np.ndarray:
    """Lays class colours over an image.

    Args:
        image: uint8 [H, W, 3], RGB.
        labels: integer [H, W]; ignored pixels (255) show the image as it is.
        colors: uint8 [K, 3].
        class_names: K names; draws a legend of the classes present, largest first, into the lower left corner, if
            the image has room for it. None draws none.
        opacity: of the colours, 0 to 1.

    Returns:
        uint8 [H, W, 3], of the image's own size.

    Raises:
        ValueError: the sizes differ, or `labels` holds a value that is neither a class nor 255.
    """
    image, labels = np.asarray(image), np.asarray(labels)
    if image.shape != (*labels.shape, 3):
        raise ValueError(f"image and labels must have one size, got {list(image.shape)} and {list(labels.shape)}")
    blended = Image.blend(Image.fromarray(image), Image.fromarray(colorize(labels, colors)), opacity)
    ignored = labels == 255
    if ignored.any():
        blended.paste(Image.fromarray(image), mask=Image.fromarray(ignored))
    result = np.asarray(blended)
    return result if class_names is None else add_legend(result, labels, colors, class_names)


def add_legend(image: np.ndarray, labels: np.ndarray, colors: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """A copy of an image with the legend of `overlay` drawn into it; arguments as there."""
    copy = Image.fromarray(image)
    draw_legend_panel(copy, class_shares(labels), colors, class_names)
    return np.asarray(copy)


def class_shares(labels: np.ndarray) -> list[tuple[int, float]]:
    """[(class, share of the pixels that count), ...], largest first."""
    # Row by row: bincount makes 8 bytes of every pixel.
    counts = sum(np.bincount(row, minlength=256) for row in np.asarray(labels, np.uint8))[:255]
    total = max(1, counts.sum())
    present = np.flatnonzero(counts)
    return [(int(index), counts[index] / total) for index in present[np.argsort(-counts[present], kind="stable")]]
