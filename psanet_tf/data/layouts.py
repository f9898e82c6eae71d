"""Where each dataset's owner puts images and labels."""

import dataclasses
from pathlib import Path

from psanet_tf.config import DataSection
from psanet_tf.data.findings import Finding
from psanet_tf.data.folders import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    STORED_SUFFIXES,
    by_stem,
    existing_folder,
    labels_without_image,
    naming_rule,
    passed_over,
    scan,
)
from psanet_tf.data.image_format import image_format
from psanet_tf.data.near_names import instead_of, right_root
from psanet_tf.data.pair_lists import read_pairs

_VOC_AUGMENTED_LISTS = ("train_aug", "trainaug")
_OR_A_LIST = ", or write a list of images and labels (data.list_file)"


@dataclasses.dataclass(frozen=True)
class Example:
    """One image and its labels on disk.

    Attributes:
        name: unique within the split, without a suffix; output files take it.
        image_path: an image.
        label_path: a single-channel PNG of the same size.
    """

    name: str
    image_path: Path
    label_path: Path


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of one split.

    Attributes:
        examples: sorted by name.
        findings: about files that are passed over and labels without an image.
        advice: what to do where files of `examples` are missing; may be empty.
    """

    examples: list[Example]
    findings: list[Finding] = dataclasses.field(default_factory=list)
    advice: str = ""

    def missing(self) -> list[Path]:
        """Paths of images and labels that are listed and not there."""
        paths = [path for example in self.examples for path in (example.image_path, example.label_path)]
        return [path for path in paths if not path.is_file()]

    def text(self) -> list[str]:
        """The findings as lines of text."""
        return [line for finding in self.findings for line in finding.lines()]


def list_files(data: DataSection, split: str) -> Listing:
    """The images of one split, whether or not the files are there.

    Args:
        data: a `DataSection` with ``format: files``.
        split: the dataset's own name of the split.

    Returns:
        Listing.

    Raises:
        FileNotFoundError: a folder or list file of the layout is not there; the message says which root or split
            may be meant.
        ValueError: a list file that cannot be used, or two images of one name.
    """
    layout, mark = _LAYOUTS[data.dataset]
    if data.dataset == "custom":
        mark = data.list_file or data.image_folder
    root = existing_root(data, mark.format(split=split))
    listing = layout(data, root, split)
    _check_names(listing.examples)
    return dataclasses.replace(listing, examples=sorted(listing.examples, key=lambda example: example.name))


def listing_warnings(data: DataSection) -> list[str]:
    """What of the training and validation images is passed over: a list of texts, without names of files.

    Args:
        data: a `DataSection`.

    Raises:
        FileNotFoundError, ValueError: as `list_files`.
    """
    if data.format != "files":
        return []
    splits = dict.fromkeys((data.train_split, data.val_split))
    return [
        f"split {split!r}: {finding.what}; psanet data check names {'it' if len(finding.where) == 1 else 'them'}"
        for split in splits
        for finding in list_files(data, split).findings
        if finding.is_problem
    ]


def existing_root(data: DataSection, mark: str = "") -> Path:
    """`data.root` as a path.

    Args:
        data: a `DataSection`.
        mark: path under the root that tells whether it is the right one.

    Raises:
        FileNotFoundError: there is no such folder, or `mark` is not in it but in one a level or two above or below.
    """
    root = Path(data.root)
    if not root.is_dir():
        if data.root.startswith("~"):
            raise FileNotFoundError(f"data.root: ~ is not expanded in {root}: write {root.expanduser()}")
        raise FileNotFoundError(
            f"data.root: there is no folder {root}{' (it is a file)' if root.exists() else instead_of(root)}"
        )
    right = None if (root / mark).exists() else right_root(root, mark)
    if right is not None:
        raise FileNotFoundError(f"data.root: {root} holds no {mark}, but {right} does: set data.root={right}")
    return root


def _check_names(examples):
    seen = {}
    for example in examples:
        other = seen.setdefault(example.name, example)
        if other is not example:
            same = other.image_path == example.image_path
            raise ValueError(
                f"{example.image_path} is listed twice: remove one of the lines"
                if same
                else f"{other.image_path} and {example.image_path} have one name, which labels and outputs go by: "
                "rename one"
            )


def _same_names(data, image_folder, label_folder, or_a_list=""):
    images, other_images = scan(image_folder, IMAGE_SUFFIXES if image_format(data).is_photograph else STORED_SUFFIXES)
    label_files, other_labels = scan(label_folder, LABEL_SUFFIXES)
    if image_folder.samefile(label_folder):
        raise ValueError(f"{image_folder}: images and labels need a folder each{or_a_list}")
    images = by_stem(images, "labels and outputs go by it: rename or remove one")
    label_files = by_stem(label_files, "and their image takes one: remove the other")
    examples = [
        Example(stem, image, label_files.get(stem, label_folder / f"{stem}.png")) for stem, image in images.items()
    ]
    unpaired = [path for stem, path in label_files.items() if stem not in images]
    without_labels = [stem for stem in images if stem not in label_files]
    advice, renamed = "", set()
    rule = naming_rule(without_labels, unpaired + other_labels)
    if rule:
        form, named_so = rule
        renamed = set(named_so)
        only_png = "" if form.lower().endswith(".png") else " and must be PNG (other forms change the values in them)"
        found = f"{len(named_so)} of {len(without_labels)} are there as {form}"
        advice = f"{found}; labels take their images' names{only_png}: rename them{or_a_list}"
    move = f"move them up{or_a_list}"
    findings = passed_over(other_images, "images", move)
    findings += passed_over([path for path in other_labels if path not in renamed], "labels", move)
    findings += labels_without_image([path for path in unpaired if path not in renamed])
    return Listing(examples, findings, advice)


def _list_ade20k(data, root, split):
    return _same_names(data, root / "images" / split, root / "annotations" / split)


def _list_voc2012(data, root, split):
    """Lists of names; the augmented list's labels are in a folder of their own, and some editions of it hold paths."""
    augmented = split in _VOC_AUGMENTED_LISTS
    labels = root / ("SegmentationClassAug" if augmented else "SegmentationClass")
    names = _VOC_AUGMENTED_LISTS if augmented else (split,)
    lists = [root / "ImageSets" / "Segmentation" / f"{name}.txt" for name in names]
    chosen = next((path for path in lists if path.is_file()), lists[0])
    advice = ""
    if augmented:
        advice = (
            "the augmented labels (SBD: SegmentationClassAug and this list) are no part of VOC 2012: add them, or "
            "train on VOC's own with data.train_split=train"
        )
    elif split == "test":
        advice = "VOC publishes no labels of its test split: take val"
    if not chosen.is_file():
        existing_folder(chosen.parent)
        there = ", ".join(sorted(path.stem for path in chosen.parent.glob("*.txt")))
        raise FileNotFoundError(
            f"there is no list {chosen}{f' (there are {there})' if there else ''}{'; ' if advice else ''}{advice}"
        )
    examples = []
    for line in read_pairs(chosen, "data.root"):
        if len(line.words) == 1 and "/" not in line.words[0]:
            name = line.words[0]
            examples.append(Example(name, root / "JPEGImages" / f"{name}.jpg", labels / f"{name}.png"))
        else:
            image, label = line.paths(root)
            examples.append(Example(image.stem, image, label))
    return Listing(examples, advice=advice)


def _list_cityscapes(data, root, split):
    images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
    advice = ""
    if split == "test":
        advice = "Cityscapes publishes no labels of its test split: take val"
    elif data.label_kind == "labelTrainIds":
        advice = "csCreateTrainIdLabelImgs of cityscapesScripts writes these files, or set data.label_kind=labelIds"
    existing_folder(images)
    existing_folder(labels, advice if split == "test" else "unpack gtFine_trainvaltest.zip into data.root")
    ending = f"_gtFine_{data.label_kind}.png"
    examples, others, unpaired = [], [], []
    for city in sorted(images.iterdir()):
        frames, rest = scan(city, (".png",)) if city.is_dir() else ([], [city])
        others += rest + [path for path in frames if not path.name.endswith("_leftImg8bit.png")]
        names = [path.name.removesuffix("_leftImg8bit.png") for path in frames if path not in set(others)]
        examples += [
            Example(name, city / f"{name}_leftImg8bit.png", labels / city.name / f"{name}{ending}") for name in names
        ]
        found = {path.name.removesuffix(ending): path for path in (labels / city.name).glob(f"*{ending}")}
        unpaired += [path for name, path in sorted(found.items()) if name not in names]
    findings = passed_over(others, "<city>/*_leftImg8bit.png", "frames lie in <city> folders: move them there")
    return Listing(examples, findings + labels_without_image(unpaired), advice)


def _list_custom(data, root, split):
    if data.list_file is None:
        images, labels = (root / folder.format(split=split) for folder in (data.image_folder, data.label_folder))
        return _same_names(data, images, labels, _OR_A_LIST)
    path = root / data.list_file.format(split=split)
    pairs = [line.paths(root) for line in read_pairs(path, "data.list_file")]
    examples = [Example(image.stem, image, label) for image, label in pairs]
    if len({example.name for example in examples}) < len(examples):
        # Images of one name in several folders.
        examples = [dataclasses.replace(example, name=_unique_name(root, example)) for example in examples]
    return Listing(examples)


def _unique_name(root, example):
    path = example.image_path
    inside = path.relative_to(root) if path.is_relative_to(root) else path.relative_to(path.anchor)
    return "_".join(inside.with_suffix("").parts)


# The function that lists a split, and a path under the root by which the layout is recognized.
_LAYOUTS = {
    "ade20k": (_list_ade20k, "images/{split}"),
    "scenes": (_list_ade20k, "images/{split}"),
    "signposts": (_list_ade20k, "images/{split}"),
    "voc2012": (_list_voc2012, "ImageSets/Segmentation"),
    "cityscapes": (_list_cityscapes, "leftImg8bit/{split}"),
    "custom": (_list_custom, "{split}"),
}
