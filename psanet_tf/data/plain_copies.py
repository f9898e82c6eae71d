"""Copies, in the cache, of the images that TensorFlow's operations cannot read: PNG, of what is no photograph ``.npy``.

The input pipeline runs no Python: threads that wait for the interpreter hold up its exit. So what its operations cannot
read (GIF, TIFF, WebP, BMP, CMYK, ``.npy`` in another order of bytes or axes) is decoded before it starts, once.
"""

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from psanet_tf.cache import cache_folder
from psanet_tf.cores import usable_cores
from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.data.pixels import decode_image, is_read_by_graph
from psanet_tf.data.stored_values import npy_bytes
from psanet_tf.files import atomic_file
from psanet_tf.progress import track

# Counts up when `decode_image` gives other pixels than before.
_VERSION = 1


def graph_readable(paths: Sequence[Path], images: ImageFormat = PHOTOGRAPHS) -> list[str]:
    """Files that `decoding.decode_image` reads as `pixels.decode_image` reads the given ones.

    Args:
        paths: of images.
        images: `ImageFormat`.

    Returns:
        list of strings: the paths themselves, or those of copies, which are made where there are none. Images that
        cannot be read at all stay as they are: the operations refuse them.

    Raises:
        OSError: the cache cannot be written.
        ImportError: there are TIFF files of what is no photograph, and tifffile is not installed.
    """
    with ThreadPoolExecutor(usable_cores()) as pool:
        readable = list(pool.map(lambda path: _is_readable(path, images), paths))
        copies = {path: _copy_path(path, images) for path, known in zip(paths, readable, strict=True) if not known}
        missing = [item for item in copies.items() if not item[1].is_file()]
        if missing:
            made_copies = pool.map(lambda item: _copy(*item, images), missing)
            for (path, _), made in zip(
                missing, track(made_copies, f"copying images to {_kind(images)}", len(missing)), strict=True
            ):
                if not made:
                    del copies[path]
    return [str(copies.get(path, path)) for path in paths]


def png_bytes(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] or [H, W] -> bytes of a PNG file, written fast."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def encoded_plainly(image: np.ndarray, images: ImageFormat = PHOTOGRAPHS) -> bytes:
    """[H, W, C] -> bytes of a file that `decoding.decode_image` reads it from: PNG, of what is no photograph .npy."""
    return png_bytes(image) if images.is_photograph else npy_bytes(image)


def _is_readable(path, images):
    try:
        with open(path, "rb") as file:
            return is_read_by_graph(file, images)
    except OSError:
        return True


def _copy_path(path, images):
    """Changes with the file: an old copy is not found any more."""
    status = os.stat(path)
    key = f"{_VERSION} {Path(path).resolve()} {status.st_size} {status.st_mtime_ns}"
    suffix = ".png"
    if not images.is_photograph:
        key, suffix = f"{key} {images.in_words()}", ".npy"
    return cache_folder() / "images" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{suffix}"


def _copy(path, place, images):
    try:
        encoded = encoded_plainly(decode_image(Path(path).read_bytes(), path, images), images)
    except (OSError, ValueError):
        return False
    try:
        with atomic_file(place) as temporary:
            temporary.write_bytes(encoded)
    except OSError as error:
        kind = _kind(images)
        raise OSError(
            f"{path} needs a {kind} copy in the cache, which cannot be written ({error}); PSANET_CACHE_DIR can name "
            "another folder"
        ) from error
    return True


def _kind(images):
    return "PNG" if images.is_photograph else ".npy"
