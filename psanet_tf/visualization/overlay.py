"""A picture with its label map laid over it, and legends that name the classes in it."""

import numpy as np
from PIL import Image

from psanet_tf.visualization.colors import colorize
from psanet_tf.visualization.legend import draw_legend_panel


def overlay(image, labels, colors, class_names=None, opacity=0.55):
    """Lays class colours over a picture.

    Args:
        image: uint8 [H, W, 3], RGB.
        labels: integer [H, W]; ignored pixels (255) show the picture as it is.
        colors: uint8 [K, 3].
        class_names: K names; draws a legend of the classes present, largest first, into the lower left corner, if
            the picture has room for it. None draws none.
        opacity: of the colours, 0 to 1.

    Returns:
        uint8 [H, W, 3], of the picture's own size.

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
    if class_names is not None:
        draw_legend_panel(blended, class_shares(labels), colors, class_names)
    return np.asarray(blended)


def class_shares(labels):
    """[(class, share of the pixels that count), ...], largest first."""
    counts = np.bincount(np.asarray(labels, np.uint8).ravel(), minlength=256)[:255]
    total = max(1, counts.sum())
    present = np.flatnonzero(counts)
    return [(int(index), counts[index] / total) for index in present[np.argsort(-counts[present], kind="stable")]]
