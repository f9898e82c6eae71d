"""The finished parts of a raster's labels, kept beside the result until all are there: what a killed run leaves."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from psanet_tf.files import atomic_file
from psanet_tf.inference.raster_strips import Band, Strips

_SETTINGS = "settings.json"
_ARRAYS = ("labels", "confidence", "picture")


class RasterParts:
    """A folder with a file for each `Band`, which appears whole or not at all.

    Args:
        folder: where; made if it is not there.
        strips: which bands there will be.
        settings: for JSON: whatever tells these parts from others.

    Attributes:
        changed: the names of settings by which parts of an earlier run were made otherwise; these were removed.
    """

    def __init__(self, folder: str | os.PathLike, strips: Strips, settings: Mapping[str, Any]) -> None:
        self._folder, self._strips = Path(folder), strips
        wanted = json.loads(json.dumps({**settings, "strips": strips.bounds}))
        self.changed = ()
        file = self._folder / _SETTINGS
        if self._folder.exists():
            there = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            self.changed = differing(there, wanted)
            if self.changed:
                self.remove()
        if not file.is_file():
            with atomic_file(file) as temporary:
                temporary.write_text(json.dumps(wanted), encoding="utf-8")

    def first_missing(self, strip: int) -> int:
        """The first band of a strip that is not there; the number of bands if all are."""
        bands = len(self._strips.row_origins)
        return next((band for band in range(bands) if not self._path(strip, band).is_file()), bands)

    def save(self, band: Band) -> None:
        """Keeps a band.

        Raises:
            NoSpaceError: there is no room.
        """
        with atomic_file(self._path(band.strip, band.band)) as temporary:
            np.savez_compressed(temporary, **{name: getattr(band, name) for name in _ARRAYS})

    def bands(self, name: str) -> Iterator[np.ndarray]:
        """Yields one of the arrays of `Band`, over all columns of the raster, of all bands from top to bottom."""
        for band in range(len(self._strips.row_origins)):
            parts = []
            for strip in range(len(self._strips.bounds)):
                with np.load(self._path(strip, band)) as arrays:
                    parts.append(arrays[name])
            yield np.hstack(parts)

    def remove(self) -> None:
        """Removes all parts."""
        shutil.rmtree(self._folder)

    def _path(self, strip, band):
        return self._folder / f"{strip}_{band}.npz"


def differing(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of settings that differ, sorted."""
    return tuple(sorted(key for key in there.keys() | wanted.keys() if there.get(key) != wanted.get(key)))
