"""Files of several images, of which the first is read."""

import os
from typing import BinaryIO

from PIL import Image

# Phones put a second image, such as a map of depths, into JPEG files; that is nothing to speak of.
_OF_SEVERAL = ("GIF", "WEBP", "PNG", "TIFF")


def num_frames(file: str | os.PathLike | BinaryIO) -> int:
    """How many frames or pages an image file has.

    Args:
        file: a path, or a binary file.

    Returns:
        int; 1 for a file that cannot be read, which is for its reader to say.
    """
    try:
        with Image.open(file) as image:
            return getattr(image, "n_frames", 1) if image.format in _OF_SEVERAL else 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 1
