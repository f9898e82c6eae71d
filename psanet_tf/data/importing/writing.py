"""Writes a dataset in the custom layout: images as they are, labels as grey PNG of class indices."""

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from psanet_tf.data import headers
from psanet_tf.data.importing.rules import ClassRule
from psanet_tf.data.importing.source import SourceImage
from psanet_tf.data.plain_copies import png_bytes
from psanet_tf.data.stored_values import image_size
from psanet_tf.data.turning import turned
from psanet_tf.folders import atomic_folder
from psanet_tf.progress import track

CLASS_NAMES, CLASS_COLORS, CONFIGURATION = "classes.txt", "colors.txt", "dataset.yaml"


def read_codes(image: SourceImage) -> np.ndarray:
    """The codes of an image's labels, turned as training turns the image.

    Labels of the size that the image has as it is stored were drawn on that: they are turned with it. Where both sizes
    are equal they are taken to be as the image is seen, which is what annotation tools show.

    Args:
        image: of a source.

    Returns:
        int32 [H, W].

    Raises:
        ValueError: an image that cannot be read, labels of another size, or what `Labels.codes` raises.
    """
    size = image_size(image.path)
    if size is None:
        raise ValueError(f"{image.path} is not a readable image")
    orientation = _orientation(image.path)
    seen = size[::-1] if orientation >= 5 else size
    codes = image.labels.codes(seen)
    if codes.shape == seen:
        return codes
    if codes.shape == size:
        return turned(codes, orientation)
    advice = "they are of another image, or were cut"
    if _same_shape(codes.shape, seen):
        advice = "scale them by nearest neighbour, so that no value is mixed from two"
    raise ValueError(
        f"{image.labels.where}: labels must be of their image's size {list(seen)} ({image.path}), got "
        f"{list(codes.shape)}: {advice}"
    )


def is_turned_unseen(path: Path) -> bool:
    """Whether an image is to be turned, and its size does not tell labels on it from labels on it as it is stored.

    Raises:
        ValueError: a form whose orientation is not followed.
    """
    orientation, size = _orientation(path), image_size(path)
    return orientation != headers.UPRIGHT and size is not None and (orientation < 5 or size[0] == size[1])


def write_dataset(out: Path, splits: Mapping[str, Sequence[SourceImage]], rule: ClassRule, configuration: str) -> None:
    """Writes images, labels, class names, colours and a configuration, all or nothing.

    Args:
        out: folder to make.
        splits: images by split.
        rule: the class of each key.
        configuration: text of dataset.yaml.

    Raises:
        FileExistsError: there is something at `out`.
        ValueError: what `read_codes` raises.
    """
    with atomic_folder(out) as folder:
        for split, images in splits.items():
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                written = pool.map(lambda image, split=split: _write(folder, split, image, rule), images)
                for _ in track(written, f"writing {split}", len(images)):
                    pass
        (folder / CLASS_NAMES).write_text("".join(f"{name}\n" for name in rule.class_names), encoding="utf-8")
        if rule.colors is not None:
            lines = "".join("{} {} {}\n".format(*color) for color in rule.colors.tolist())
            (folder / CLASS_COLORS).write_text(lines, encoding="utf-8")
        (folder / CONFIGURATION).write_text(configuration, encoding="utf-8")


def _write(folder, split, image, rule):
    codes = read_codes(image)
    (folder / "labels" / split / f"{image.name}.png").write_bytes(png_bytes(rule.table[codes]))
    place = folder / "images" / split / f"{image.name}{image.path.suffix.lower()}"
    # Another name of the same file takes no room; other disks, and files of others, want a copy.
    with contextlib.suppress(OSError):
        os.link(image.path.resolve(), place)
        if os.access(place, os.W_OK):
            return
        place.unlink()
    shutil.copyfile(image.path, place)


def _orientation(path):
    """As much of a file is read as what stands before its pixels."""
    with open(path, "rb") as file:
        start = file.read(1 << 18)
    if headers.is_jpeg(start) or headers.is_png(start):
        return headers.orientation(start)
    try:
        with Image.open(path) as image:
            tag = image.getexif().get(headers.ORIENTATION_TAG, headers.UPRIGHT)
    except UnidentifiedImageError:
        # Of more channels than Pillow knows, which is for `psanet data check` to say.
        return headers.UPRIGHT
    if tag != headers.UPRIGHT:
        raise ValueError(f"{path} is to be turned (orientation tag {tag}): save the image upright, as JPEG or PNG")
    return headers.UPRIGHT


def _same_shape(size, other):
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(*size, *other)
