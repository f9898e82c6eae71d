"""Which files are large pictures, and what reads them."""

import dataclasses
import os
from pathlib import Path

from psanet_tf.data.image_format import ImageFormat
from psanet_tf.rasters.geotiff import GeoRaster
from psanet_tf.rasters.raster import Raster
from psanet_tf.rasters.scaled import ScaledRaster
from psanet_tf.rasters.slides import SLIDE_SUFFIXES, SlideRaster
from psanet_tf.rasters.tiff_directory import first_directory

RASTER_SUFFIXES = (".vrt", ".jp2", *SLIDE_SUFFIXES)
"""Of files that are always rasters; TIFF files may be."""

_TIFF_SUFFIXES = (".tif", ".tiff")
_LARGEST_IMAGE = 178_956_970  # pixels: what is larger, Pillow refuses as an image
_SAME = 0.01


@dataclasses.dataclass(frozen=True)
class RasterView:
    """How large pictures are looked at.

    Attributes:
        bands: which bands are the network's channels, counted from 1; None: all but alpha, or all.
        scale: of rows and columns; 1 takes the pixels as they are.
        resolution: side that a pixel shall have, in the unit of the file's coordinate reference system or, of slides,
            in micrometres, in the place of `scale`.

    Raises:
        ValueError: `scale` or `resolution` that is not above 0, both, or no bands.
    """

    bands: tuple[int, ...] | None = None
    scale: float = 1.0
    resolution: float | None = None

    def __post_init__(self):
        for name in ("scale", "resolution"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"--{name}: must be above 0, got {value:g}")
        if self.resolution is not None and self.scale != 1:
            raise ValueError("--scale and --resolution say the same in two ways: give one of them")
        if self.bands is not None and not self.bands:
            raise ValueError("--bands: names no band")

    def scale_of(self, raster: Raster) -> float:
        """Of a raster at its full size.

        Raises:
            ValueError: a resolution is wanted of a file that says none.
        """
        if self.resolution is None:
            return self.scale
        if raster.pixel_size is None:
            raise ValueError(f"--resolution: {raster.path} does not say how large its pixels are: give --scale")
        return raster.pixel_size.length / self.resolution


def is_raster(path: str | os.PathLike) -> bool:
    """Whether a file is read by windows: a slide, a scene with a georeference, or a TIFF too large for an image."""
    suffix = Path(path).suffix.lower()
    if suffix in RASTER_SUFFIXES:
        return True
    directory = first_directory(path) if suffix in _TIFF_SUFFIXES else None
    return directory is not None and (directory.is_georeferenced or directory.rows * directory.columns > _LARGEST_IMAGE)


def open_raster(path: str | os.PathLike, images: ImageFormat, view: RasterView | None = None) -> Raster:
    """A large picture, to be closed.

    Args:
        path: of the file.
        images: `ImageFormat` that its pixels shall have.
        view: `RasterView`; default: all bands, at the size that the file has.

    Raises:
        ValueError: it cannot be read, has other channels or another dtype, or does not go with `view`.
        ImportError: what reads it is not installed.
    """
    view = RasterView() if view is None else view
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    is_slide = Path(path).suffix.lower() in SLIDE_SUFFIXES
    if is_slide and view.bands is not None:
        raise ValueError(f"--bands: {path} is a slide, whose channels are red, green and blue")
    raster = SlideRaster(path, images) if is_slide else GeoRaster(path, images, view.bands)
    try:
        scale = view.scale_of(raster)
        if is_slide and scale < 1:
            smaller = SlideRaster(path, images, reduction=1 / scale)
            raster.close()
            raster, scale = smaller, scale * smaller.reduction
        return raster if abs(scale - 1) < _SAME else ScaledRaster(raster, scale)
    except ValueError:
        raster.close()
        raise
