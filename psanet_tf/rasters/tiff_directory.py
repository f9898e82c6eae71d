"""The first directory of a TIFF file: as much as tells a scene from a photograph, without a library that may be absent.

TIFF 6.0, BigTIFF (libtiff's design), GeoTIFF 1.1 (OGC 19-008r4).
"""

import os
import struct
from typing import NamedTuple

_COLUMNS, _ROWS = 256, 257
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS = 33550, 33922, 34264, 34735
_INTEGERS = {3: "H", 4: "I", 16: "Q"}
_MOST_ENTRIES = 4096  # of a file that is none, any number may stand there


class TiffDirectory(NamedTuple):
    """Rows and columns of the first image of a TIFF file, and whether it says where on the ground that lies."""

    rows: int
    columns: int
    is_georeferenced: bool


def first_directory(path: str | os.PathLike) -> TiffDirectory | None:
    """The first directory of a TIFF or BigTIFF file; None of any other file, or a damaged one."""
    try:
        with open(path, "rb") as file:
            return _read(file)
    except (OSError, struct.error, KeyError):
        return None


def _read(file):
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}[start[:2]]
    (version,) = struct.unpack_from(f"{order}H", start, 2)
    # Where the directory is, how its entries are counted, and what an entry is: tag, type, count, value.
    at, counter, entry = {42: ("4xI", "H", "HHI4s"), 43: ("8xQ", "Q", "HHQ8s")}[version]
    (place,) = struct.unpack_from(order + at, start)
    file.seek(place)
    (count,) = struct.unpack(order + counter, file.read(struct.calcsize(order + counter)))
    size = struct.calcsize(order + entry)
    contents = file.read(size * min(count, _MOST_ENTRIES))
    sides, tags = {}, set()
    for tag, kind, _, value in struct.iter_unpack(order + entry, contents):
        tags.add(tag)
        if tag in (_COLUMNS, _ROWS):
            (sides[tag],) = struct.unpack_from(order + _INTEGERS[kind], value)
    placed = tags & {_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION}
    return TiffDirectory(sides[_ROWS], sides[_COLUMNS], _GEO_KEYS in tags and bool(placed))
