"""What all large pictures have in common: a size, and windows that can be read."""

import abc
import dataclasses
import os
from pathlib import Path

import numpy as np

from psanet_tf.data.image_format import ImageFormat


@dataclasses.dataclass(frozen=True)
class Georeference:
    """Where on the ground a raster lies.

    Attributes:
        crs: the coordinate reference system as WKT; None where the file names none.
        transform: (a, b, c, d, e, f): the upper left corner of the pixel in a row and a column lies at
            ``x = a * column + b * row + c``, ``y = d * column + e * row + f``; None where the file says nothing.
        control_points: (row, column, x, y, z) each, of files that have them in the transform's place, in `crs`.
    """

    crs: str | None = None
    transform: tuple[float, ...] | None = None
    control_points: tuple[tuple[float, ...], ...] = ()

    def scaled(self, down: float, across: float) -> "Georeference":
        """That of the same ground in `down` times as many rows and `across` times as many columns."""
        transform = self.transform
        if transform is not None:
            a, b, c, d, e, f = transform
            transform = (a / across, b / down, c, d / across, e / down, f)
        points = tuple((row * down, column * across, *place) for row, column, *place in self.control_points)
        return Georeference(self.crs, transform, points)


@dataclasses.dataclass(frozen=True)
class PixelSize:
    """How much a pixel covers.

    Attributes:
        length: side of a pixel.
        unit: in words, such as "metre", "degree", "micrometre".
    """

    length: float
    unit: str


class Raster(abc.ABC):
    """A picture that is read by windows. One thread at a time may read; it is closed at the end of a ``with`` block.

    Attributes:
        path: of the file.
        images: `ImageFormat` that its pixels have.
        size: (rows, columns).
        georeference: `Georeference`.
        pixel_size: `PixelSize`, or None where the file does not say.
    """

    path: Path
    images: ImageFormat
    size: tuple[int, int]
    georeference: Georeference
    pixel_size: PixelSize | None

    @abc.abstractmethod
    def read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of a window, which lies within the raster.

        Returns:
            ([height, width, C] of the dtype of `images`, bool [height, width]: which of them hold an image; what the
            others hold means nothing).

        Raises:
            ValueError: the file is damaged there; the message names it.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Gives the file back."""

    def __enter__(self) -> "Raster":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def window_in_words(path: str | os.PathLike, top: int, left: int, height: int, width: int) -> str:
    """ "scene.tif, rows 0 to 511, columns 512 to 1023" """
    return f"{path}, rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
