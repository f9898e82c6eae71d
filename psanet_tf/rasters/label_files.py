"""GeoTIFF files of one value per pixel, which lie where the scene lies."""

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from psanet_tf.files import atomic_file
from psanet_tf.rasters.geotiff import opened, rasterio_for
from psanet_tf.rasters.raster import Georeference

_TILE = 512
_SETTINGS_TAG = "PSANET_SETTINGS"


def write_byte_raster(
    path: str | os.PathLike,
    bands: Iterable[np.ndarray],
    size: tuple[int, int],
    georeference: Georeference,
    nodata: int,
    tags: Mapping[str, str],
    settings: Mapping[str, object],
    colors: np.ndarray | None = None,
) -> None:
    """Writes a tiled, compressed GeoTIFF of one band of uint8, as BigTIFF where it may get too large for another.

    Args:
        path: where to.
        bands: uint8 [rows, columns], all rows from top to bottom.
        size: (rows, columns).
        georeference: of the scene at that size.
        nodata: the value of what holds no image.
        tags: further metadata.
        settings: for JSON: what the values were made with, which `settings_of` gives back.
        colors: uint8 [K, 3] of the values 0 to K - 1, as the file's colour map; `nodata` is transparent.

    Raises:
        NoSpaceError: there is no room.
        ImportError: rasterio is not installed.
    """
    rasterio = rasterio_for(f"writing {path}")
    place = {"crs": rasterio.crs.CRS.from_wkt(georeference.crs)} if georeference.crs else {}
    if georeference.transform:
        place["transform"] = rasterio.Affine(*georeference.transform)
    elif georeference.control_points:
        place["gcps"] = [rasterio.control.GroundControlPoint(*point) for point in georeference.control_points]
    form = {"tiled": True, "blockxsize": _TILE, "blockysize": _TILE, "compress": "deflate", "BIGTIFF": "IF_SAFER"}
    shape = {"height": size[0], "width": size[1], "count": 1, "dtype": "uint8", "nodata": nodata}
    with atomic_file(path, suffix=".tif") as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(temporary, "w", driver="GTiff", NUM_THREADS="ALL_CPUS", **form, **shape, **place) as file:
            if colors is not None:
                table = {index: (*map(int, color), 255) for index, color in enumerate(colors)}
                file.write_colormap(1, {**table, nodata: (0, 0, 0, 0)})
            file.update_tags(**tags, **{_SETTINGS_TAG: json.dumps(dict(settings))})
            row = 0
            for rows in _in_rows_of_tiles(bands):
                file.write(rows, 1, window=rasterio.windows.Window(0, row, size[1], len(rows)))
                row += len(rows)


def settings_of(path: str | os.PathLike) -> Mapping[str, object] | None:
    """What `write_byte_raster` was given as `settings`; None of a file that it did not write, or that is not there."""
    if not Path(path).is_file():
        return None
    try:
        with opened(path) as file:
            return json.loads(file.tags().get(_SETTINGS_TAG, "null"))
    except ValueError:
        return None


def _in_rows_of_tiles(bands):
    """The same rows, as many at a time as a tile has: one that is written in two parts takes its room twice."""
    held = []
    for band in bands:
        held.append(band)
        while sum(map(len, held)) >= _TILE:
            rows = np.concatenate(held)
            held = [rows[_TILE:]]
            yield rows[:_TILE]
    rows = np.concatenate(held)
    if len(rows):
        yield rows
