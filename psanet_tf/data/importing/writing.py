"""Writes a dataset in the custom layout: images as they are, labels as grey PNG of class indices."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from psanet_tf.cores import usable_cores
from psanet_tf.data import headers
from psanet_tf.data.importing.rules import ClassRule
from psanet_tf.data.importing.shapes import Shapes
from psanet_tf.data.importing.source import SourceImage
from psanet_tf.data.plain_copies import png_bytes
from psanet_tf.data.stored_values import image_size
from psanet_tf.data.turning import turned
from psanet_tf.folders import atomic_folder
from psanet_tf.progress import track

CLASS_NAMES, CLASS_COLORS, CONFIGURATION = "classes.txt", "colors.txt", "dataset.yaml"


@dataclasses.dataclass(frozen=True)
class ReadLabels:
    """The labels of one image, as they are to be trained on.

    Attributes:
        codes: int32 [H, W], turned as training turns the image.
        enlarged: how many times larger they are than what was read.
        is_turned_unseen: whether the image is to be turned, and its size does not tell labels on it from labels on it
            as it is stored.
    """

    codes: np.ndarray
    enlarged: int
    is_turned_unseen: bool


def read_labels(image: SourceImage) -> ReadLabels:
    """The labels of an image, turned as training turns the image.

    Labels of the size that the image has as it is stored were drawn on that: they are turned with it. Where both sizes
    are equal they are taken to be as the image is seen, which is what annotation tools show.

    Args:
        image: of a source.

    Raises:
        ValueError: an image that cannot be read, labels of another size, or what `Labels.codes` raises.
    """
    size = image_size(image.path)
    if size is None:
        raise ValueError(f"{image.path} is not a readable image")
    orientation = _orientation(image.path)
    seen = size[::-1] if orientation >= 5 else size
    codes = image.labels.codes(seen)
    times = max(_times_smaller(codes.shape, seen), _times_smaller(codes.shape, size))
    if times > 1 and image.enlarges:
        # Each pixel of a mask becomes the pixels of the image that it covers.
        codes = codes.repeat(times, axis=0).repeat(times, axis=1)
    if codes.shape not in (seen, size):
        raise ValueError(
            f"{image.labels.where}: labels must be of their image's size {list(seen)} ({image.path}), got "
            f"{list(codes.shape)}: {_advice_on_size(image, codes.shape, seen, times)}"
        )
    is_turned_unseen = orientation != headers.UPRIGHT and (orientation < 5 or size[0] == size[1])
    as_seen = codes if codes.shape == seen else turned(codes, orientation)
    return ReadLabels(as_seen, times if image.enlarges else 1, is_turned_unseen)


def _times_smaller(shape, size):
    """How many times smaller a mask is than an image, where that is a whole number; else 1."""
    times = size[0] // max(shape[0], 1)
    return times if times > 1 and (shape[0] * times, shape[1] * times) == size else 1


def _advice_on_size(image, shape, seen, times):
    if isinstance(image.labels, Shapes):
        return "the image was scaled, turned or cut since: --images names the folder of those that were labelled"
    if times > 1:
        return f"--resize-masks enlarges them {times} times, without mixing values"
    if _same_shape(shape, seen):
        return "scale them by nearest neighbour, so that no value is mixed from two"
    return "they are of another image, or were cut"


def write_dataset(out: Path, splits: Mapping[str, Sequence[SourceImage]], rule: ClassRule, configuration: str) -> None:
    """Writes images, labels, class names, colours and a configuration, all or nothing.

    Args:
        out: folder to make.
        splits: images by split.
        rule: the class of each key.
        configuration: text of dataset.yaml.

    Raises:
        FileExistsError: there is something at `out`.
        ValueError: what `read_labels` raises.
    """
    with atomic_folder(out) as folder:
        for split, images in splits.items():
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True)
            with ThreadPoolExecutor(usable_cores()) as pool:
                written = pool.map(lambda image, split=split: _write(folder, split, image, rule), images)
                for _ in track(written, f"writing {split}", len(images)):
                    pass
        write_class_files(folder, rule)
        (folder / CONFIGURATION).write_text(configuration, encoding="utf-8")


def write_class_files(folder: Path, rule: ClassRule) -> None:
    """Writes the names of the classes, and their colours where there are some, into the folder of a dataset."""
    (folder / CLASS_NAMES).write_text("".join(f"{name}\n" for name in rule.class_names), encoding="utf-8")
    if rule.colors is not None:
        lines = "".join("{} {} {}\n".format(*color) for color in rule.colors.tolist())
        (folder / CLASS_COLORS).write_text(lines, encoding="utf-8")


def _write(folder, split, image, rule):
    codes = read_labels(image).codes
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
