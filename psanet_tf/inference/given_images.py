"""What callers give as an image: a path, bytes, a PIL image, or an array."""

import io
import os

import numpy as np
from PIL import Image

from psanet_tf.data.pixels import decode_image
from psanet_tf.data.readers import read_image
from psanet_tf.inference.labeler import checked_image

GivenImage = str | os.PathLike | bytes | Image.Image | np.ndarray


def as_pixels(image: GivenImage) -> np.ndarray:
    """The pixels of an image, uint8 [H, W, 3], RGB.

    Args:
        image: path of a file, the bytes of one, a PIL image (all read as `psanet_tf.data.pixels` describes), or
            uint8 [H, W, 3], RGB, taken as it is.

    Raises:
        TypeError: something else.
        ValueError: no image, one whose pixels have no sure meaning in 8 bits, or an array of another shape or dtype.
        FileNotFoundError: there is no such file.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), "the given bytes")
    if isinstance(image, Image.Image):
        # By way of a file, so that orientation, palettes and transparency mean what they mean everywhere.
        stream = io.BytesIO()
        try:
            # PNG has no four colours.
            kind = "TIFF" if image.mode == "CMYK" else "PNG"
            image.save(stream, format=kind, exif=image.getexif(), **({"compress_level": 1} if kind == "PNG" else {}))
        except OSError as error:
            raise ValueError(f"a PIL image of mode {image.mode} has no sure meaning ({error}): convert it") from None
        return decode_image(stream.getvalue(), "the given PIL image")
    if isinstance(image, np.ndarray):
        return checked_image(image)
    raise TypeError(
        "image must be a path, the bytes of a file, a PIL image, or a NumPy array uint8 [H, W, 3], "
        f"got {type(image).__name__}"
    )
