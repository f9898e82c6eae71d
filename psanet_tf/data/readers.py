"""Lists the examples of a split, and reads one picture or label file."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from psanet_tf.data.catalog import OUT_OF_RANGE, info_of, label_value_table
from psanet_tf.data.findings import counted
from psanet_tf.data.folders import IMAGE_SUFFIXES
from psanet_tf.data.layouts import Example, existing_root, list_files
from psanet_tf.data.near_names import instead_of
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

# The two bytes of a PNG file that tell bit depth and colour type.
PNG_KIND = slice(24, 26)


def list_examples(data, split):
    """The pictures of one split, sorted by name.

    Args:
        data: a `DataSection`.
        split: the dataset's own name of the split, e.g. ``data.train_split``.

    Returns:
        list of Example, at least one.

    Raises:
        FileNotFoundError: a folder or list file of the layout is not there, or a picture has no labels.
        ValueError: the split holds no pictures, or TFRecords of other classes.
    """
    root = existing_root(data)
    if data.format == "tfrecord":
        check_shard_classes(root, split, info_of(data))
        return list_records(root, split)
    listing = list_files(data, split)
    if not listing.examples:
        raise ValueError("\n".join([f"{root}: split {split!r} holds no pictures", *listing.text()]))
    missing = listing.missing()
    if missing:
        advice = f"; {listing.advice}" if listing.advice else ""
        unlabelled = missing == [example.label_path for example in listing.examples]
        lead = f"split {split!r} has pictures but no labels: " if unlabelled else ""
        raise FileNotFoundError(
            f"{lead}{counted(len(missing), 'file')} of split {split!r} ({counted(len(listing.examples), 'picture')}) "
            f"not there, the first is {missing[0]}{instead_of(missing[0])}{advice}; psanet data check lists them"
        )
    return listing.examples


def read_example(example, info):
    """Reads a picture and its labels.

    Args:
        example: from `list_examples`.
        info: DatasetInfo of its dataset.

    Returns:
        uint8 [H, W, 3] and uint8 [H, W]; see `read_image` and `read_label`.

    Raises:
        ValueError: as `read_image` and `read_label`, or the two differ in size.
    """
    if isinstance(example, RecordExample):
        encoded_image, encoded_label = example.encoded()
        image = _decode_image(encoded_image, example.where)
        label = _decode_label(encoded_label, example.where, info, train_ids=True)
    else:
        image = read_image(example.image_path)
        label = read_label(example.label_path, info)
    if image.shape[:2] != label.shape:
        raise ValueError(
            f"{example.label_path}: labels must be of their picture's size {list(image.shape[:2])}, "
            f"got {list(label.shape)}"
        )
    return image, label


def read_image(path, upright=False):
    """Reads a picture.

    Args:
        path: JPEG, PNG, or another format that Pillow reads.
        upright: turn the picture as its orientation tag says. Not for pictures with labels: those were drawn on the
            stored pixels.

    Returns:
        uint8 [H, W, 3], RGB. Grey pictures are spread to three channels, of 16-bit ones the upper 8 bits are taken,
        and transparent pixels are laid on white.

    Raises:
        ValueError: the file is no picture or is cut short; the message names it.
        FileNotFoundError: there is no such file.
    """
    return _decode_image(_contents(path), path, upright)


def _decode_image(contents, where, upright=False):
    picture = _open(where, contents)
    if upright:
        picture = ImageOps.exif_transpose(picture)
    return np.asarray(_to_rgb(picture))


def _to_rgb(picture):
    if picture.mode.startswith("I"):
        # Pillow's own conversion cuts off at 255.
        values = np.asarray(picture).astype(np.int64)
        picture = Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def read_label(path, info):
    """Reads a label file and turns its values into train ids.

    Args:
        path: an 8-bit grey PNG, or a palette PNG, of which the index is read, not the colour.
        info: DatasetInfo of its dataset.

    Returns:
        uint8 [H, W], train ids; `info.ignore_label` where there is none.

    Raises:
        ValueError: the file is no such picture, or holds a value that is no class of the dataset; the message
            names it.
        FileNotFoundError: there is no such file.
    """
    return _decode_label(_contents(path), path, info, has_train_ids(path))


def _decode_label(contents, where, info, train_ids):
    values = np.asarray(_open_label(where, contents))
    table = label_value_table(info, train_ids)
    label = table[values]
    if (label == OUT_OF_RANGE).any():
        wrong = np.unique(values[label == OUT_OF_RANGE])
        shown = ", ".join(str(value) for value in wrong[:10]) + (", ..." if len(wrong) > 10 else "")
        allowed = _ranges(np.flatnonzero(table != OUT_OF_RANGE))
        raise ValueError(f"{where}: label values out of range: {shown}; {info.name} has values {allowed}")
    return label


def label_palette(path):
    """uint8 [n, 3], the colours of a palette PNG; None of any other label file.

    Raises:
        ValueError, FileNotFoundError: as `read_label`.
    """
    picture = _open_label(path, _contents(path))
    return np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3) if picture.mode == "P" else None


def has_train_ids(label_path):
    """Whether a file holds train ids instead of its dataset's own values (Cityscapes has both kinds)."""
    return str(label_path).endswith("_labelTrainIds.png")


def label_kinds(palette):
    """What `PNG_KIND` must hold: the palette PNGs, or 8-bit grey. Grey of fewer bits would be scaled to 0..255."""
    return [bytes([depth, 3]) for depth in (1, 2, 4, 8)] if palette else [bytes([8, 0])]


def _open_label(path, contents):
    picture = _open(path, contents)
    if picture.format != "PNG" or contents[PNG_KIND] not in label_kinds(True) + label_kinds(False):
        kind = f"{picture.format} of mode {picture.mode}" if picture.format != "PNG" else _png_kind(contents)
        raise ValueError(f"{path}: labels must be an 8-bit grey or a palette PNG, this is {kind}")
    return picture


def _png_kind(contents):
    depth, color_type = contents[PNG_KIND]
    colors = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
    return f"{depth}-bit {colors.get(color_type, 'unknown')} PNG"


def _contents(path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return Path(path).read_bytes()


def _open(path, contents):
    try:
        picture = Image.open(io.BytesIO(contents))
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = (
            str(error).replace(f"{io.BytesIO.__name__}", "file") if "BytesIO" not in str(error) else "unknown format"
        )
        raise ValueError(f"{path} is not a readable picture: {reason}") from None
    return picture


def _ranges(values):
    """ "0..150, 255" for a sorted array of integers."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)
