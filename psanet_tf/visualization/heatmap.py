"""Weights laid over an image as heat."""

import numpy as np
from PIL import Image, ImageDraw

# From transparent dark violet over red and orange to light yellow: brightness rises all the way.
_STOPS = np.array([[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], float)


def heat_colors() -> np.ndarray:
    """uint8 [256, 3]: the colour of each level of heat."""
    levels = np.linspace(0, len(_STOPS) - 1, 256)
    return np.stack([np.interp(levels, range(len(_STOPS)), channel) for channel in _STOPS.T], axis=1).astype(np.uint8)


def heat_overlay(image: np.ndarray, heat: np.ndarray, point: tuple[float, float] | None = None) -> np.ndarray:
    """Lays weights over an image.

    Args:
        image: uint8 [H, W, 3].
        heat: float [H, W], not negative; scaled to its own largest value.
        point: (x, y) to mark.

    Returns:
        uint8 [H, W, 3]: the image in grey and dark, the hotter the more of the heat's colour.
    """
    heat = np.asarray(heat, np.float32)
    if heat.shape != image.shape[:2]:
        raise ValueError(f"image and heat must have one size, got {list(image.shape)} and {list(heat.shape)}")
    level = heat / max(float(heat.max()), 1e-30)
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None] * 0.6
    opacity = 0.15 + 0.7 * level[..., None]
    colors = heat_colors()[(level * 255).astype(np.uint8)]
    blended = Image.fromarray((grey * (1 - opacity) + colors * opacity).astype(np.uint8))
    if point is not None:
        mark_point(blended, point)
    return np.asarray(blended)


def mark_point(image: Image.Image, point: tuple[float, float]) -> None:
    """Draws a ring and a dot at (x, y) into a PIL image."""
    x, y = point
    radius = max(3, round(min(image.size) / 60))
    draw = ImageDraw.Draw(image)
    for size, color in ((radius + 1, (0, 0, 0)), (radius, (80, 220, 255)), (radius - 2, (0, 0, 0))):
        if size > 0:
            draw.ellipse((x - size, y - size, x + size, y + size), outline=color, width=2 if size == radius else 1)
    draw.point((x, y), fill=(80, 220, 255))


def attention_atlas(maps: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """All heat maps of a grid of points on one image, each scaled to its own largest value.

    Args:
        maps: float [rows * columns, h, w].

    Returns:
        uint8 [rows * h, columns * w].
    """
    height, width = maps.shape[1:]
    largest = np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-30)
    tiles = (maps / largest * 255).round().astype(np.uint8).reshape(rows, columns, height, width)
    return tiles.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
