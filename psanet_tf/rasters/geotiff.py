"""GeoTIFF scenes, and whatever else GDAL reads, by windows."""

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from psanet_tf.data.findings import counted
from psanet_tf.data.image_format import ImageFormat
from psanet_tf.extras import needs_extra
from psanet_tf.rasters.raster import Georeference, PixelSize, Raster, window_in_words

_CACHE_BYTES = 128 * 2**20
"""Of decoded blocks that GDAL keeps. Its own choice is a twentieth of the machine's memory."""


def rasterio_for(purpose: str) -> ModuleType:
    """The package rasterio.

    Args:
        purpose: what needs it, the subject of a sentence.

    Raises:
        ImportError: it is not installed.
    """
    with needs_extra("geo", purpose):
        import rasterio
        import rasterio.control
        import rasterio.crs
        import rasterio.enums
        import rasterio.env
        import rasterio.errors
        import rasterio.features
        import rasterio.warp
        import rasterio.windows
    # For the whole process: GDAL has one cache.
    rasterio.env.set_gdal_config("GDAL_CACHEMAX", _CACHE_BYTES)
    return rasterio


class GeoRaster(Raster):
    """A file that GDAL reads.

    Which pixels hold an image, its alpha band says (unless the network takes it for a channel), its mask, and its
    nodata value: of integers a pixel is none where all bands have it, of floating point where one has, or is not
    finite.

    Args:
        path: of the file.
        images: `ImageFormat` that is wanted. One band of uint8 makes a photograph of three equal channels.
        bands: which bands are the channels, counted from 1; default: all but alpha, or all.

    Raises:
        ValueError: no file that GDAL reads, or one of other bands or another dtype; the message says what to do.
        ImportError: rasterio is not installed.
    """

    def __init__(self, path: str | os.PathLike, images: ImageFormat, bands: Sequence[int] | None = None) -> None:
        self._rasterio = rasterio_for(f"reading {path} by windows")
        self.path, self.images = Path(path), images
        self._file = opened(path)
        try:
            self._bands = _chosen_bands(self._file, path, images, bands)
            _check_dtype(self._file, path, images, self._bands)
        except ValueError:
            self._file.close()
            raise
        self.size = self._file.height, self._file.width
        self.georeference = georeference_of(self._file)
        self.pixel_size = _pixel_size(self._file)
        self._nodata = _nodata(self._file, self._bands)
        kinds = self._rasterio.enums
        alpha = self._file.colorinterp.index(kinds.ColorInterp.alpha) + 1 if _has_alpha(self._file) else None
        self._alpha = alpha if alpha not in self._bands else None
        flags = self._file.mask_flag_enums[0]
        self._has_mask = kinds.MaskFlags.per_dataset in flags and kinds.MaskFlags.alpha not in flags

    def read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        window = self._rasterio.windows.Window(left, top, width, height)
        try:
            pixels = np.moveaxis(self._file.read(self._bands, window=window), 0, -1)
            return pixels, self._valid(pixels, window)
        except self._rasterio.errors.RasterioError as error:
            raise ValueError(
                f"{window_in_words(self.path, top, left, height, width)}: cannot be read: {error}"
            ) from None

    def close(self) -> None:
        self._file.close()

    def _valid(self, pixels, window):
        valid = np.ones(pixels.shape[:2], bool)
        is_float = self.images.dtype == "float32"
        if self._nodata is not None:
            empty = pixels == self._nodata  # nothing equals NaN
            valid = ~(empty.any(-1) if is_float else empty.all(-1))
        if is_float:
            valid &= np.isfinite(pixels).all(-1)
        if self._alpha is not None:
            valid &= self._file.read(self._alpha, window=window) > 0
        if self._has_mask:
            valid &= self._file.read_masks(1, window=window) > 0
        return valid


def opened(path: str | os.PathLike) -> Any:
    """A file as rasterio opens it, a `rasterio.io.DatasetReader`.

    Raises:
        ValueError: it cannot be opened, or holds no bands.
    """
    rasterio = rasterio_for(f"reading {path} by windows")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            file = rasterio.open(path)
    except rasterio.errors.RasterioError as error:
        raise ValueError(f"{path} is not a readable raster: {error}") from None
    if not file.count:
        parts = ", ".join(file.subdatasets[:3])
        file.close()
        raise ValueError(f"{path} holds no bands itself: write one of its parts to a GeoTIFF ({parts})")
    return file


def georeference_of(file: Any) -> Georeference:
    """That of an opened file."""
    points, crs = file.gcps
    if not points or not crs:  # points on no ground that is named say nothing
        points, crs = (), file.crs
    return Georeference(
        crs.to_wkt() if crs else None,
        None if file.transform.is_identity else tuple(file.transform)[:6],
        tuple((point.row, point.col, point.x, point.y, point.z or 0.0) for point in points),
    )


def _pixel_size(file):
    if file.transform.is_identity or not file.crs:
        return None
    unit = "degree" if file.crs.is_geographic else file.crs.linear_units
    return PixelSize(math.sqrt(abs(file.transform.determinant)), unit)


def _has_alpha(file):
    return any(kind.name == "alpha" for kind in file.colorinterp)


def _nodata(file, bands):
    """Numbers of the bands, NaN for none; None where no band has one."""
    values = [file.nodatavals[band - 1] for band in bands]
    if all(value is None for value in values):
        return None
    values = np.array([math.nan if value is None else value for value in values])
    # As it is stored: 64 bits of a number may stand in the header.
    return values.astype(np.float32) if file.dtypes[bands[0] - 1] == "float32" else values


def _chosen_bands(file, path, images, bands):
    spread = images.is_photograph  # grey makes three equal channels, as of other files
    if bands is not None:
        wrong = [band for band in bands if not 1 <= band <= file.count]
        if wrong:
            raise ValueError(f"--bands: {path} has bands 1 to {file.count}, there is no band {wrong[0]}")
        if len(bands) != images.channels and not (spread and len(bands) == 1):
            raise ValueError(f"--bands: the network takes {images.in_words()}, got {counted(len(bands), 'band')}")
        chosen = list(bands)
    else:
        colors = [band for band, kind in enumerate(file.colorinterp, start=1) if kind.name != "alpha"]
        fits = len(colors) == images.channels or (spread and len(colors) == 1)
        chosen = colors if fits else list(range(1, file.count + 1))
        if not fits and file.count != images.channels:
            alpha = " and alpha" if len(colors) < file.count else ""
            example = ",".join(map(str, range(1, images.channels + 1)))
            advice = f"choose bands, e.g. --bands {example}" if file.count > images.channels else "they are too few"
            raise ValueError(
                f"{path} has {counted(len(colors), 'band')}{alpha}, the network takes {images.in_words()}: {advice}"
            )
    if any(file.colorinterp[band - 1].name == "palette" for band in chosen):
        raise ValueError(
            f"{path} holds numbers of colours (a palette), not colours: gdal_translate -expand rgb {path} RGB.tif"
        )
    return chosen * 3 if spread and len(chosen) == 1 else chosen


def _check_dtype(file, path, images, bands):
    dtypes = {file.dtypes[band - 1] for band in bands}
    if dtypes != {images.dtype}:
        kinds = {"uint8": "Byte -scale BLACK WHITE 0 255", "uint16": "UInt16", "float32": "Float32"}
        raise ValueError(
            f"{path} holds {' and '.join(sorted(dtypes))}, the network takes {images.in_words()}: convert it as the "
            f"training images were, e.g. gdal_translate -ot {kinds[images.dtype]} {path} CONVERTED.tif"
        )
