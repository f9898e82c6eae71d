"""Image files whose values are read as they are stored, of any number of channels and with all their bits.

What `pixels` makes a photograph of (grey spread to three channels, palettes resolved, transparency laid on white) is
none of it done here: a file has the channels and the dtype that the dataset says, or is refused with what to set.
PNG of 8 and 16 bits, TIFF, ``.npy``, and grey JPEG; `stored_decoding` reads all but TIFF in TensorFlow operations.
"""

import importlib.util
import io
import os
import re
from typing import BinaryIO

import numpy as np
from PIL import Image

from psanet_tf.data import headers
from psanet_tf.data.findings import counted
from psanet_tf.data.image_format import ImageFormat
from psanet_tf.data.turning import turned
from psanet_tf.extras import needs_extra

NPY_MAGIC = b"\x93NUMPY"
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_CHANNELS = {headers.GREY: 1, headers.GREY_ALPHA: 2, headers.RGB: 3, headers.RGB_ALPHA: 4}
NPY_TYPES = {"uint8": "|u1", "uint16": "<u2", "float32": "<f4"}
NPY_START = len(NPY_MAGIC) + 4  # of the text that describes the array: before it are version and length
"""Of version 1.0, which NumPy writes for all arrays of numbers."""


def read_stored(contents: bytes, where: str | os.PathLike, images: ImageFormat) -> np.ndarray:
    """Bytes of an image file -> its values, [H, W, C] of the format's dtype.

    Args:
        contents: bytes of a PNG, TIFF or ``.npy`` file, or of a grey JPEG.
        where: what messages call it, such as its path.
        images: `ImageFormat` that the file must have.

    Raises:
        ValueError: no such file, cut short, or of other channels or numbers; the message names `where`, says what was
            found and wanted, and what to set.
        ImportError: a TIFF file, and tifffile is not installed.
    """
    if headers.is_png(contents):
        values = _png(contents, where, images)
    elif headers.is_jpeg(contents):
        values = _jpeg(contents, where)
    elif contents.startswith(NPY_MAGIC):
        values = _npy(contents, where)
    elif contents.startswith(TIFF_MAGICS):
        values = _tiff(contents, where, images)
    else:
        raise ValueError(
            f"{where} is no PNG, TIFF, .npy or JPEG file, of which values are read as they are stored "
            f"({images.in_words()}): convert it"
        )
    _check(values, where, images)
    return values


def npy_bytes(values: np.ndarray) -> bytes:
    """[H, W, C] -> bytes of an ``.npy`` file that TensorFlow's operations read."""
    stream = io.BytesIO()
    array = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def npy_pattern(images: ImageFormat) -> str:
    """A regular expression that the description of an ``.npy`` file matches which TensorFlow's operations read.

    Its groups are rows and columns.
    """
    kind = re.escape(NPY_TYPES[images.dtype])
    channels = r"(?:, 1)?" if images.channels == 1 else f", {images.channels}"
    return rf"\{{'descr': '{kind}', 'fortran_order': False, 'shape': \((\d+), (\d+){channels}\), \}}\s*"


def is_plain_npy(file: BinaryIO, images: ImageFormat) -> bool:
    """Whether a binary file is an ``.npy`` that TensorFlow's operations read: C order, little-endian, this format."""
    start = file.read(NPY_START)
    if not start.startswith(NPY_MAGIC + b"\1\0"):
        return False
    text = file.read(int.from_bytes(start[-2:], "little")).decode("latin1")
    return re.fullmatch(npy_pattern(images), text) is not None


def image_size(file: str | os.PathLike | BinaryIO) -> tuple[int, int] | None:
    """(rows, columns) of an image file of whatever form, without its values.

    Args:
        file: a path, or a binary file.

    Returns:
        The size as stored, before any turning; None for a file that cannot be read, which is for its reader to say.
    """
    try:
        if isinstance(file, (str, os.PathLike)):
            with open(file, "rb") as opened:
                return image_size(opened)
        start = file.read(len(NPY_MAGIC))
        file.seek(0)
        if start == NPY_MAGIC:
            return _npy_size(file)
        if start.startswith(TIFF_MAGICS) and importlib.util.find_spec("tifffile") is not None:
            # Pillow knows no more than four channels, and logs each file that has them.
            return _tiff_size(file)
        with Image.open(file) as image:
            return image.size[::-1]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _check(values, where, images):
    channels = values.shape[2]
    found = f"{counted(channels, 'channel')} of {values.dtype.name}"
    if channels != images.channels and values.dtype != images.dtype:
        raise ValueError(
            f"{where} holds {found}, wanted are {images.in_words()}: set data.channels={channels} and "
            f"{_dtype_advice(values.dtype)} if all images are such"
        )
    if channels != images.channels:
        raise ValueError(
            f"{where} holds {found}, wanted are {images.in_words()}: set "
            f"data.channels={channels} if all images are such, or select the channels that all of them have"
        )
    if values.dtype != images.dtype:
        raise ValueError(
            f"{where} holds values of {values.dtype.name}, wanted is {images.dtype}: all images of a dataset need one "
            f"dtype, or their values would mean different things; {_dtype_advice(values.dtype)} if all are such"
        )
    if 0 in values.shape:
        raise ValueError(f"{where} holds no pixels: its shape is {list(values.shape)}")
    if images.dtype == "float32" and not np.isfinite(values).all():
        raise ValueError(
            f"{where} holds {(~np.isfinite(values)).sum()} values of {values.size} that are NaN or infinite: put a "
            "number in their place"
        )


def _dtype_advice(dtype):
    if dtype.name in NPY_TYPES:
        return f"set data.dtype={dtype.name}"
    return f"convert them to uint8, uint16 or float32 (array.astype) and set data.dtype, which cannot be {dtype.name}"


def _png(contents, where, images):
    import tensorflow as tf

    if len(contents) < headers.PNG_KIND.stop:
        raise ValueError(f"{where} is not a readable image: a PNG cut short")
    depth, color_type = headers.png_kind(contents)
    if color_type == headers.PALETTE:
        raise ValueError(f"{where}: a palette PNG, whose values are numbers of colours: {_SAVE.format(images.dtype)}")
    if any(name == b"tRNS" for name, _ in headers.png_chunks(contents)):
        raise ValueError(f"{where}: a PNG with a transparent colour, which is no value: {_SAVE.format(images.dtype)}")
    if depth < 8:
        raise ValueError(f"{where}: a PNG of {depth} bits, wanted are 8 or 16: {_SAVE.format(images.dtype)}")
    if color_type not in PNG_CHANNELS:
        raise ValueError(f"{where} is not a readable image: a PNG of colour type {color_type}")
    try:
        # Pillow has 16 bits of grey alone. On the CPU: there is no other form of the operation.
        with tf.device("CPU:0"):
            values = tf.io.decode_png(contents, channels=0, dtype=tf.uint16 if depth == 16 else tf.uint8).numpy()
    except tf.errors.OpError as error:
        raise ValueError(f"{where} is not a readable image: {error.message}") from None
    return turned(values, headers.orientation(contents))


def _jpeg(contents, where):
    try:
        with Image.open(io.BytesIO(contents)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where} is not a readable image: {error}") from None
    if image.mode == "CMYK":
        raise ValueError(f"{where} is a CMYK JPEG, which differs from decoder to decoder: save it as PNG or TIFF")
    values = np.asarray(image)
    return turned(values[..., None] if values.ndim == 2 else values, headers.orientation(contents))


def _npy_size(file):
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape = read(file)[0]
    except Exception:  # of a damaged file
        return None
    return shape[:2] if len(shape) >= 2 else None


def _npy(contents, where):
    try:
        values = np.lib.format.read_array(io.BytesIO(contents), allow_pickle=False)
    except Exception as error:  # NumPy's parser of the description has errors of its own
        raise ValueError(f"{where} is not a readable .npy file: {error}") from None
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3:
        raise ValueError(f"{where}: an image must be [H, W] or [H, W, C], this array is {list(values.shape)}")
    if values.dtype.kind not in "uif":
        raise ValueError(f"{where}: an image must hold numbers, this array is of {values.dtype}")
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def _tiff(contents, where, images):
    tifffile = _tifffile(f"{where}: reading a TIFF file with all its channels and bits")
    try:
        with tifffile.TiffFile(io.BytesIO(contents)) as file:
            page = file.pages[0]
            if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
                raise ValueError(f"a palette TIFF, whose values are numbers of colours: {_SAVE.format(images.dtype)}")
            if page.bitspersample not in (8, 16, 32, 64):
                raise ValueError(f"a TIFF of {page.bitspersample} bits: {_SAVE.format(images.dtype)}")
            axes, values = page.axes, page.asarray()
            if axes == "YX" and len(file.pages) == images.channels > 1:
                # A page for each channel.
                return turned(np.stack([one.asarray() for one in file.pages], axis=-1), _tiff_orientation(page))
            if "S" in axes:
                values = np.moveaxis(values, axes.index("S"), -1)
                axes = axes.replace("S", "") + "S"
            if axes not in ("YX", "YXS"):
                raise ValueError(f"a TIFF of axes {axes}, wanted are rows, columns and channels")
            orientation = _tiff_orientation(page)
    except Exception as error:  # each of the many compressions has errors of its own
        raise ValueError(f"{where} is not a readable image: {error}") from None
    return turned(values[..., None] if axes == "YX" else values, orientation)


def _tifffile(purpose):
    with needs_extra("tiff", purpose):
        import tifffile
    return tifffile


def _tiff_size(file):
    try:
        with _tifffile("the size of a TIFF file").TiffFile(file) as tiff:
            return tiff.pages[0].imagelength, tiff.pages[0].imagewidth
    except Exception:  # of a damaged file
        return None


def _tiff_orientation(page):
    tag = page.tags.get(headers.ORIENTATION_TAG)
    value = tag.value if tag is not None else headers.UPRIGHT
    return int(value) if 1 <= int(value) <= 8 else headers.UPRIGHT


_SAVE = "save it with its values as {}"
