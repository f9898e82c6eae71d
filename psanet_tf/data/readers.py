"""Lists the pictures of a dataset in its owner's layout, and reads one picture or label file."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from psanet_tf.data.catalog import OUT_OF_RANGE, label_value_table

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


@dataclasses.dataclass(frozen=True)
class Example:
    """One picture and its labels on disk.

    Attributes:
        name: unique within the split, without a suffix; output files take it.
        image_path: an RGB picture.
        label_path: a single-channel PNG of the same size.
    """

    name: str
    image_path: Path
    label_path: Path


def list_examples(data, split):
    """The pictures of one split, sorted by name.

    Args:
        data: a `DataSection`.
        split: the dataset's own name of the split, e.g. ``data.train_split``.

    Returns:
        list of Example, at least one.

    Raises:
        FileNotFoundError: a folder or list file of the layout is not there, or a picture has no labels.
        ValueError: the split holds no pictures.
    """
    root = Path(data.root)
    if not root.is_dir():
        raise FileNotFoundError(f"data.root: there is no folder {root}")
    examples = _LAYOUTS[data.dataset](root, split)
    if not examples:
        raise ValueError(f"{root}: split {split!r} holds no pictures")
    missing = [example for example in examples if not example.label_path.is_file()]
    if missing:
        first = missing[0]
        raise FileNotFoundError(
            f"{len(missing)} of {len(examples)} pictures in split {split!r} have no labels, the first is "
            f"{first.image_path}: there is no {first.label_path}"
        )
    return examples


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
    picture = _open(path)
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
        path: a single-channel PNG; of palette PNGs the index is read, not the colour.
        info: DatasetInfo of its dataset.

    Returns:
        uint8 [H, W], train ids; `info.ignore_label` where there is none.

    Raises:
        ValueError: the file is no picture, has several channels, or holds a value that is no class of the
            dataset; the message names it.
        FileNotFoundError: there is no such file.
    """
    picture = _open(path)
    if picture.mode not in ("L", "P", "1", "I", "I;16"):
        raise ValueError(f"{path}: labels must be a single-channel picture, this one is {picture.mode}")
    values = np.asarray(picture)
    table = label_value_table(info, train_ids=str(path).endswith("_labelTrainIds.png"))
    if values.dtype == np.uint8:
        label = table[values]
    else:
        label = np.where((values >= 0) & (values < 256), table[np.clip(values, 0, 255).astype(np.uint8)], OUT_OF_RANGE)
    if (label == OUT_OF_RANGE).any():
        wrong = np.unique(values[label == OUT_OF_RANGE])
        shown = ", ".join(str(value) for value in wrong[:10]) + (", ..." if len(wrong) > 10 else "")
        allowed = np.flatnonzero(table != OUT_OF_RANGE)
        raise ValueError(f"{path}: label values out of range: {shown}; {info.name} has values {_ranges(allowed)}")
    return label


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
    image = read_image(example.image_path)
    label = read_label(example.label_path, info)
    if image.shape[:2] != label.shape:
        raise ValueError(
            f"{example.label_path}: labels must be of their picture's size {list(image.shape[:2])}, "
            f"got {list(label.shape)}"
        )
    return image, label


def _open(path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        picture = Image.open(path)
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable picture: {error}") from None
    return picture


def _ranges(values):
    """ "0..150, 255" for a sorted array of integers."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)


def _folder(path):
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    return path


def _pictures(folder):
    return sorted(path for path in _folder(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _list_ade20k(root, split):
    images = _pictures(root / "images" / split)
    labels = _folder(root / "annotations" / split)
    return [Example(image.stem, image, labels / f"{image.stem}.png") for image in images]


_LAYOUTS = {"ade20k": _list_ade20k, "scenes": _list_ade20k}
