"""What stands in front of the pixels of JPEG and PNG files; `graph_headers` reads the same in TensorFlow operations.

Both look where the formats say that it belongs: the orientation in the first Exif segment of a JPEG (before the tables)
or the first eXIf chunk of a PNG (before the pixels), tag 0x0112 of the first directory.
"""

import struct
from collections.abc import Iterator

JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
EXIF_MAGIC = b"Exif\0\0"
ORIENTATION_TAG = 0x0112
SHORT, LONG = 3, 4  # types of Exif values
UPRIGHT = 1

# The two bytes of a PNG file that tell bit depth and colour type, and the types.
PNG_KIND = slice(24, 26)
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def is_jpeg(contents: bytes) -> bool:
    return contents.startswith(JPEG_MAGIC)


def is_png(contents: bytes) -> bool:
    return contents.startswith(PNG_MAGIC)


def png_kind(contents: bytes) -> tuple[int, int]:
    """(bits per sample, colour type)."""
    return tuple(contents[PNG_KIND])


def orientation(contents: bytes) -> int:
    """1..8 as Exif counts them, of a JPEG or PNG file; 1 (upright) if it says nothing, or nothing that makes sense."""
    if is_jpeg(contents):
        return exif_orientation(_jpeg_exif(contents))
    return (
        exif_orientation(dict(reversed(list(png_chunks(contents)))).get(b"eXIf", b"")) if is_png(contents) else UPRIGHT
    )


def exif_orientation(exif: bytes) -> int:
    """The same of an Exif block alone, with or without ``Exif\\0\\0`` in front."""
    exif = exif.removeprefix(EXIF_MAGIC)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return UPRIGHT
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return UPRIGHT
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for place in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", exif, place)
        if tag == ORIENTATION_TAG:
            if kind not in (SHORT, LONG) or number != 1:
                return UPRIGHT
            (value,) = struct.unpack_from(order + ("H" if kind == SHORT else "I"), exif, place + 8)
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT


def png_chunks(contents: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, data) of a PNG's chunks before its pixels."""
    place = len(PNG_MAGIC)
    while place + 8 <= len(contents):
        length, kind = struct.unpack_from(">I4s", contents, place)
        if kind in (b"IDAT", b"IEND"):
            return
        yield kind, contents[place + 8 : place + 8 + length]
        place += length + 12


def _jpeg_exif(contents):
    place = 2
    while place + 10 <= len(contents):
        first, marker, length = struct.unpack_from(">BBH", contents, place)
        # Application data and comments come before all else.
        if first != 0xFF or not (0xE0 <= marker <= 0xEF or marker == 0xFE) or length < 2:
            break
        if marker == 0xE1 and contents[place + 4 : place + 10] == EXIF_MAGIC:
            return contents[place + 10 : place + 2 + length]
        place += 2 + length
    return b""
