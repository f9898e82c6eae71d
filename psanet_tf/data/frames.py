"""Files of several pictures, of which the first is read."""

from PIL import Image

# Phones put a second picture, such as a map of depths, into JPEG files; that is nothing to speak of.
_OF_SEVERAL = ("GIF", "WEBP", "PNG", "TIFF")


def num_frames(file):
    """How many frames or pages a picture file has.

    Args:
        file: a path, or a binary file.

    Returns:
        int; 1 for a file that cannot be read, which is for its reader to say.
    """
    try:
        with Image.open(file) as picture:
            return getattr(picture, "n_frames", 1) if picture.format in _OF_SEVERAL else 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 1
