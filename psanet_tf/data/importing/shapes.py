"""Shapes that people draw around things, as labels of pixels."""

import dataclasses
from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Shape:
    """One thing in an image.

    Attributes:
        label: place of its name in `Keys.names`.
        rings: outlines, each a list of (x, y) in pixels, (0, 0) being the corner of the image; what lies in an odd
            number of them is inside, so that a ring in a ring is a hole.
        mask: bool [h, w] in the place of rings ...
        origin: ... and the (row, column) of its corner in the image.
    """

    label: int
    rings: Sequence[Sequence[Point]] = ()
    mask: np.ndarray | None = None
    origin: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The labels of one image as shapes; later ones lie on top of earlier ones.

    Attributes:
        where: the file they are from.
        shapes: list of Shape.
        num_labels: how many names `Keys` has; its code of what lies in no shape.
        size: rows and columns of the image that was drawn on, where the source says them.
    """

    where: str
    shapes: Sequence[Shape]
    num_labels: int
    size: tuple[int, int] | None = None

    def codes(self, size: tuple[int, int]) -> np.ndarray:
        """int32 [H, W]; see `Labels`."""
        size = self.size or size
        codes = np.full(size, self.num_labels, np.int32)
        for shape in self.shapes:
            if shape.mask is None:
                _fill(codes, shape)
            else:
                _paste(codes, shape, self.where)
        return codes


def inside(rings: Sequence[Sequence[Point]], size: tuple[int, int]) -> np.ndarray:
    """bool [H, W]: the pixels whose middle lies in an odd number of the rings.

    Pillow's polygons have whole numbers for corners and all of their edges for inside, so that neighbours overlap.

    Args:
        rings: as of `Shape`.
        size: rows and columns.
    """
    # Where the border is crossed on the way along a row.
    crossings = np.zeros((size[0], size[1] + 1), bool)
    for ring in rings:
        points = np.asarray(ring, float).reshape(-1, 2)
        for (x, y), (next_x, next_y) in zip(points, np.roll(points, -1, axis=0), strict=True):
            low, high = np.clip(np.ceil(np.sort([y, next_y]) - 0.5), 0, size[0]).astype(int)
            if low < high:
                rows = np.arange(low, high)
                columns = np.ceil(x + (rows + 0.5 - y) * (next_x - x) / (next_y - y) - 0.5)
                crossings[rows, np.clip(columns, 0, size[1]).astype(int)] ^= True
    return np.logical_xor.accumulate(crossings, axis=1)[:, :-1]


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> list[Point]:
    """The ring of an ellipse about (x, y), turned clockwise."""
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    turn = np.deg2rad(degrees)
    across, down = radius_x * np.cos(angles), radius_y * np.sin(angles)
    xs = x + across * np.cos(turn) - down * np.sin(turn)
    ys = y + across * np.sin(turn) + down * np.cos(turn)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def _fill(codes, shape):
    """Within the box around the rings, which is small beside most images."""
    points = np.concatenate([np.asarray(ring, float).reshape(-1, 2) for ring in shape.rings])
    if not len(points):
        return
    left, top = np.clip(np.floor(points.min(0)), 0, codes.shape[::-1]).astype(int)
    right, bottom = np.clip(np.ceil(points.max(0)), 0, codes.shape[::-1]).astype(int)
    rings = [np.asarray(ring, float).reshape(-1, 2) - (left, top) for ring in shape.rings]
    codes[top:bottom, left:right][inside(rings, (bottom - top, right - left))] = shape.label


def _paste(codes, shape, where):
    top, left = shape.origin
    height, width = shape.mask.shape
    if top < 0 or left < 0 or top + height > codes.shape[0] or left + width > codes.shape[1]:
        raise ValueError(
            f"{where}: a mask of {[height, width]} pixels at row {top}, column {left} reaches out of the image of "
            f"{list(codes.shape)}: is this the export of these images?"
        )
    codes[top : top + height, left : left + width][shape.mask] = shape.label
