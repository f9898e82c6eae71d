"""Lists the examples of a split, and reads one image or label file (as `pixels` describes)."""

import os
from pathlib import Path

import numpy as np

from psanet_tf.config import DataSection
from psanet_tf.data import headers
from psanet_tf.data.catalog import OUT_OF_RANGE, DatasetInfo, info_of, label_value_table
from psanet_tf.data.findings import counted
from psanet_tf.data.folders import IMAGE_SUFFIXES
from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.data.label_rules import LabelRule
from psanet_tf.data.layouts import Example, existing_root, list_files
from psanet_tf.data.near_names import instead_of
from psanet_tf.data.pixels import decode_image, decode_label, decode_label_colors
from psanet_tf.data.record_fingerprints import check_shard_classes
from psanet_tf.data.records import RecordExample, list_records

__all__ = [
    "IMAGE_SUFFIXES",
    "Example",
    "list_examples",
    "read_example",
    "read_image",
    "read_label",
]


def list_examples(data: DataSection, split: str) -> list[Example]:
    """The images of one split, sorted by name.

    Args:
        data: a `DataSection`.
        split: the dataset's own name of the split, e.g. ``data.train_split``.

    Returns:
        list of Example, at least one.

    Raises:
        FileNotFoundError: a folder or list file of the layout is not there, or an image has no labels.
        ValueError: the split holds no images, or TFRecords of other classes.
    """
    root = existing_root(data)
    if data.format == "tfrecord":
        check_shard_classes(root, split, info_of(data))
        return list_records(root, split)
    listing = list_files(data, split)
    if not listing.examples:
        raise ValueError("\n".join([f"{root}: split {split!r} holds no images", *listing.text()]))
    missing = listing.missing()
    if missing:
        advice = f"; {listing.advice}" if listing.advice else ""
        unlabelled = missing == [example.label_path for example in listing.examples]
        lead = f"split {split!r} has images but no labels: " if unlabelled else ""
        raise FileNotFoundError(
            f"{lead}{counted(len(missing), 'file')} of split {split!r} ({counted(len(listing.examples), 'image')}) "
            f"not there, the first is {missing[0]}{instead_of(missing[0])}{advice}; psanet data check lists them"
        )
    return listing.examples


def encoded_example(example: Example) -> tuple[bytes, bytes]:
    """Bytes of the image file and of the label file of an example, which may be in a TFRecord.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if isinstance(example, RecordExample):
        return example.encoded()
    return contents_of(example.image_path), contents_of(example.label_path)


def read_example(example: Example, info: DatasetInfo) -> tuple[np.ndarray, np.ndarray]:
    """Reads an image and its labels.

    Args:
        example: from `list_examples`.
        info: DatasetInfo of its dataset.

    Returns:
        [H, W, C] of the dtype of `info.images`, for photographs uint8 [H, W, 3], and uint8 [H, W]; see `read_image`
        and `read_label`.

    Raises:
        ValueError: as `read_image` and `read_label`, or the two differ in size.
        FileNotFoundError: there is no such file.
    """
    image, values = decode_example(example, *encoded_example(example), info)
    return image, _train_ids(values, _names(example)[1], info, holds_train_ids(example))


def decode_example(
    example: Example, encoded_image: bytes, encoded_label: bytes, info: DatasetInfo
) -> tuple[np.ndarray, np.ndarray]:
    """What `encoded_example` gives -> [H, W, C], and uint8 [H, W]: the label values as stored, or of colours train ids.

    Raises:
        ValueError: as `read_example`, but for values that are no class.
    """
    image_name, label_name = _names(example)
    image = decode_image(encoded_image, image_name, info.images)
    values = _decode_values(encoded_label, label_name, None if holds_train_ids(example) else info.label_rule)
    if image.shape[:2] != values.shape:
        raise ValueError(_sizes_differ(example, image.shape[:2], values.shape, headers.orientation(encoded_image)))
    return image, values


def holds_train_ids(example: Example) -> bool:
    """Whether the label values of an example as stored are train ids."""
    return isinstance(example, RecordExample) or has_train_ids(example.label_path)


def _names(example):
    if isinstance(example, RecordExample):
        return example.where, example.where
    return example.image_path, example.label_path


def read_image(path: str | os.PathLike, images: ImageFormat = PHOTOGRAPHS) -> np.ndarray:
    """Reads an image.

    Args:
        path: JPEG, PNG, BMP, GIF, TIFF, WebP, or another format that Pillow reads; of what is no photograph PNG, TIFF,
            ``.npy``, or grey JPEG.
        images: `ImageFormat`.

    Returns:
        uint8 [H, W, 3], RGB, or [H, W, C] of the format's dtype, turned as the orientation tag says; see
        `pixels.decode_image`.

    Raises:
        ValueError: the file is no image, is cut short, or has no sure meaning; the message names it.
        FileNotFoundError: there is no such file.
    """
    return decode_image(contents_of(path), path, images)


def read_label(path: str | os.PathLike, info: DatasetInfo) -> np.ndarray:
    """Reads a label file and turns its values into train ids.

    Args:
        path: an 8-bit grey PNG, or a palette PNG, of which the index is read, not the colour; see
            `pixels.decode_label`. Where `info` says which colours are classes, what `pixels.decode_label_colors` takes.
        info: DatasetInfo of its dataset.

    Returns:
        uint8 [H, W], train ids; `info.ignore_label` where there is none.

    Raises:
        ValueError: the file is no such image, or holds a value that is no class of the dataset; the message
            names it.
        FileNotFoundError: there is no such file.
    """
    values = _decode_values(contents_of(path), path, None if has_train_ids(path) else info.label_rule)
    return _train_ids(values, path, info, has_train_ids(path))


def _decode_values(contents, where, rule: LabelRule | None):
    """uint8 [H, W]: values as stored; train ids where colours are read."""
    if rule is None or not rule.colors:
        return decode_label(contents, where)
    return rule.train_ids_of_colors(decode_label_colors(contents, where), where)


def _train_ids(values, where, info, train_ids):
    table = label_value_table(info, train_ids)
    label = table[values]
    if (label == OUT_OF_RANGE).any():
        wrong = np.unique(values[label == OUT_OF_RANGE])
        shown = ", ".join(str(value) for value in wrong[:10]) + (", ..." if len(wrong) > 10 else "")
        allowed = _ranges(np.flatnonzero(table != OUT_OF_RANGE))
        raise ValueError(
            f"{where}: label values out of range: {shown}; {info.name} has values {allowed} (psanet data check tells "
            "what to set)"
        )
    return label


def _sizes_differ(example, image_size, label_size, orientation):
    text = f"{example.label_path}: labels must be of their image's size {list(image_size)}, got {list(label_size)}"
    if orientation != headers.UPRIGHT and label_size == image_size[::-1]:
        text += (
            f"; {example.image_path} is to be turned (Exif orientation {orientation}), and the labels were drawn on "
            "the image as it is stored: turn them too, or take the tag out (exiftool -Orientation= FILE)"
        )
    return text


def has_train_ids(label_path: str | os.PathLike) -> bool:
    """Whether a file holds train ids instead of its dataset's own values (Cityscapes has both kinds)."""
    return str(label_path).endswith("_labelTrainIds.png")


def contents_of(path: str | os.PathLike) -> bytes:
    """Bytes of a file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return Path(path).read_bytes()


def _ranges(values):
    """ "0..150, 255" for a sorted array of integers."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)
