"""Where each dataset's owner puts pictures and labels."""

import dataclasses
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")

_VOC_AUGMENTED_LISTS = ("train_aug", "trainaug")


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


def list_files(data, split):
    """The pictures of one split, whether or not the files are there.

    Args:
        data: a `DataSection` with ``format: files``.
        split: the dataset's own name of the split.

    Returns:
        list of Example.

    Raises:
        FileNotFoundError: a folder or list file of the layout is not there.
        ValueError: a list file that cannot be used.
    """
    return _LAYOUTS[data.dataset](data, Path(data.root), split)


def _folder(path):
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    return path


def _lines(path):
    if not path.is_file():
        raise FileNotFoundError(f"there is no list {path}")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _pictures(folder):
    return sorted(path for path in _folder(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _same_names(images, labels):
    return [Example(image.stem, image, labels / f"{image.stem}.png") for image in _pictures(images)]


def _list_ade20k(data, root, split):
    return _same_names(root / "images" / split, _folder(root / "annotations" / split))


def _list_voc2012(data, root, split):
    """Lists of names; the augmented list's labels are in a folder of their own, and some editions of it hold paths."""
    augmented = split in _VOC_AUGMENTED_LISTS
    labels = root / ("SegmentationClassAug" if augmented else "SegmentationClass")
    names = _VOC_AUGMENTED_LISTS if augmented else (split,)
    lists = [root / "ImageSets" / "Segmentation" / f"{name}.txt" for name in names]
    chosen = next((path for path in lists if path.is_file()), lists[0])
    examples = []
    for line in _lines(chosen):
        if "/" in line:
            examples.append(_pair(root, line, chosen))
        else:
            examples.append(Example(line, root / "JPEGImages" / f"{line}.jpg", labels / f"{line}.png"))
    return sorted(examples, key=lambda example: example.name)


def _list_cityscapes(data, root, split):
    examples = []
    for city in sorted(path for path in _folder(root / "leftImg8bit" / split).iterdir() if path.is_dir()):
        for image in sorted(city.glob("*_leftImg8bit.png")):
            name = image.name.removesuffix("_leftImg8bit.png")
            label = root / "gtFine" / split / city.name / f"{name}_gtFine_{data.label_kind}.png"
            examples.append(Example(name, image, label))
    return examples


def _list_custom(data, root, split):
    if data.list_file is None:
        return _same_names(root / data.image_folder.format(split=split), root / data.label_folder.format(split=split))
    path = root / data.list_file.format(split=split)
    examples = [_pair(root, line, path) for line in _lines(path)]
    if len({example.name for example in examples}) < len(examples):
        # Pictures of one name in several folders.
        examples = [dataclasses.replace(example, name=_unique_name(root, example)) for example in examples]
    return sorted(examples, key=lambda example: example.name)


def _pair(root, line, path):
    words = line.split()
    if len(words) != 2:
        raise ValueError(f"{path}: a line must hold a picture and its labels, got {line!r}")
    # Some lists write paths under the root with a leading slash.
    image, label = [Path(word) if Path(word).is_file() else root / word.lstrip("/") for word in words]
    return Example(image.stem, image, label)


def _unique_name(root, example):
    path = example.image_path
    inside = path.relative_to(root) if path.is_relative_to(root) else path.relative_to(path.anchor)
    return "_".join(inside.with_suffix("").parts)


_LAYOUTS = {
    "ade20k": _list_ade20k,
    "scenes": _list_ade20k,
    "voc2012": _list_voc2012,
    "cityscapes": _list_cityscapes,
    "custom": _list_custom,
}
