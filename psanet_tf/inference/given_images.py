"""What callers give as an image: a path, bytes, a PIL image, or an array."""

import io
import os

import numpy as np
from PIL import Image

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.data.pixels import decode_image
from psanet_tf.data.readers import read_image

GivenImage = str | os.PathLike | bytes | Image.Image | np.ndarray


def as_pixels(image: GivenImage, images: ImageFormat = PHOTOGRAPHS) -> np.ndarray:
    """The values of an image, [H, W, C] of the format's dtype; of photographs uint8 [H, W, 3], RGB.

    Args:
        image: path of a file, the bytes of one, a PIL image (all read as `psanet_tf.data.pixels` describes), or such an
            array, taken as it is.
        images: `ImageFormat`.

    Raises:
        TypeError: something else.
        ValueError: no image, one whose pixels have no sure meaning in 8 bits, or of another shape or dtype.
        FileNotFoundError: there is no such file.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, images)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), "the given bytes", images)
    if isinstance(image, Image.Image):
        # By way of a file, so that orientation, palettes and transparency mean what they mean everywhere.
        stream = io.BytesIO()
        try:
            # PNG has no four colours.
            kind = "TIFF" if image.mode == "CMYK" else "PNG"
            image.save(stream, format=kind, exif=image.getexif(), **({"compress_level": 1} if kind == "PNG" else {}))
        except OSError as error:
            raise ValueError(f"a PIL image of mode {image.mode} has no sure meaning ({error}): convert it") from None
        return decode_image(stream.getvalue(), "the given PIL image", images)
    if isinstance(image, np.ndarray):
        return images.checked(image)
    raise TypeError(
        f"image must be a path, the bytes of a file, a PIL image, or a NumPy array {images.dtype} "
        f"[H, W, {images.channels}], "
        f"got {type(image).__name__}"
    )
