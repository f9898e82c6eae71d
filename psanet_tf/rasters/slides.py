"""Whole-slide images of pathology, by windows of one of their levels."""

import os
from pathlib import Path
from types import ModuleType

import numpy as np

from psanet_tf.data.image_format import ImageFormat
from psanet_tf.extras import needs_extra
from psanet_tf.rasters.raster import Georeference, PixelSize, Raster, window_in_words

SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi")

_SAME = 0.01  # relative difference of scales that is none: levels are 4.0003 times smaller


def openslide_for(purpose: str) -> ModuleType:
    """The package openslide.

    Args:
        purpose: what needs it, the subject of a sentence.

    Raises:
        ImportError: it, or the library that it binds, is not installed.
    """
    with needs_extra("slides", purpose):
        import openslide
    return openslide


class SlideRaster(Raster):
    """A level of a file that OpenSlide reads. Where nothing was scanned there is no image.

    Args:
        path: of the file.
        images: `ImageFormat` that is wanted, which must be photographs'.
        reduction: how many times smaller than the scan it may be: the smallest level that is not smaller is read.

    Attributes:
        reduction: how many times smaller than the scan the level is.

    Raises:
        ValueError: no file that OpenSlide reads, or the network takes no photographs.
        ImportError: openslide is not installed.
    """

    def __init__(self, path: str | os.PathLike, images: ImageFormat, reduction: float = 1.0) -> None:
        self._openslide = openslide_for(f"reading {path}")
        if not images.is_photograph:
            raise ValueError(f"{path} is a slide of 3 channels of uint8, the network takes {images.in_words()}")
        self.path, self.images = Path(path), images
        try:
            self._slide = self._openslide.OpenSlide(path)
        except self._openslide.OpenSlideError as error:
            raise ValueError(f"{path} is not a readable slide: {error}") from None
        downsamples = self._slide.level_downsamples
        self._level = max(level for level, factor in enumerate(downsamples) if factor <= reduction * (1 + _SAME))
        self.reduction = downsamples[self._level]
        self.size = self._slide.level_dimensions[self._level][::-1]
        self.georeference = Georeference()
        length = self._slide.properties.get(self._openslide.PROPERTY_NAME_MPP_X)
        self.pixel_size = PixelSize(float(length) * self.reduction, "micrometre") if length else None

    def read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        origin = round(left * self.reduction), round(top * self.reduction)
        try:
            pixels = np.asarray(self._slide.read_region(origin, self._level, (width, height)))
        except self._openslide.OpenSlideError as error:
            raise ValueError(
                f"{window_in_words(self.path, top, left, height, width)}: cannot be read: {error}"
            ) from None
        return pixels[..., :3], pixels[..., 3] > 0

    def close(self) -> None:
        self._slide.close()
