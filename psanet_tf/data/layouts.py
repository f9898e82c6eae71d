"""Where each dataset's owner puts images and labels."""

import dataclasses
from pathlib import Path

from psanet_tf.config import DataSection
from psanet_tf.data.findings import Finding
from psanet_tf.data.folders import existing_folder, labels_without_image, passed_over, scan
from psanet_tf.data.listing import Example, Listing, same_names
from psanet_tf.data.near_names import instead_of, right_root
from psanet_tf.data.pair_lists import read_pairs

_VOC_AUGMENTED_LISTS = ("train_aug", "trainaug")
_OR_A_LIST = ", or write a list of images and labels (data.list_file)"


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


def _list_ade20k(data, root, split):
    return same_names(data, root / "images" / split, root / "annotations" / split)


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


def _list_pascal_context(data, root, split):
    """As VOC 2010, with the masks and lists that `Detail` (detail-api) makes of trainval_merged.json."""
    chosen = root / "ImageSets" / "SegmentationContext" / f"{split}.txt"
    if not chosen.is_file():
        existing_folder(chosen.parent, "mmsegmentation's tools/dataset_converters/pascal_context.py writes it")
        there = ", ".join(sorted(path.stem for path in chosen.parent.glob("*.txt")))
        raise FileNotFoundError(f"there is no list {chosen}{f' (there are {there})' if there else ''}")
    images, labels = root / "JPEGImages", root / "SegmentationClassContext"
    names = [line.words[0] for line in read_pairs(chosen, "data.root")]
    return Listing([Example(name, images / f"{name}.jpg", labels / f"{name}.png") for name in names])


def _list_mapillary_vistas(data, root, split):
    """Labels of version 1.2: in a folder of its own in the archive of 2.0."""
    labels = root / split / "v1.2" / "labels"
    return same_names(data, root / split / "images", labels if labels.is_dir() else root / split / "labels")


def _list_loveda(data, root, split):
    advice = "LoveDA publishes no labels of its Test split: take Val" if split == "Test" else ""
    existing_folder(root / split)
    scenes = [root / split / scene for scene in ("Urban", "Rural") if (root / split / scene).is_dir()]
    if not scenes:
        raise FileNotFoundError(f"{root / split} holds no folders Urban and Rural: unpack {split}.zip into data.root")
    existing_folder(scenes[0] / "masks_png", advice)
    parts = [same_names(data, scene / "images_png", scene / "masks_png") for scene in scenes]
    findings = [finding for part in parts for finding in part.findings]
    if len(scenes) == 1:
        gone = root / split / ("Rural" if scenes[0].name == "Urban" else "Urban")
        findings.append(
            Finding(
                f"of LoveDA's two scenes {scenes[0].name} alone is there, {gone.name} is not",
                f"unpack the whole {split}.zip, or report scores as those of {scenes[0].name}",
                (str(gone),),
            )
        )
    return Listing(
        [example for part in parts for example in part.examples],
        findings,
        advice or next((part.advice for part in parts if part.advice), ""),
    )


def _list_isaid(data, root, split):
    labels = root / split / "Semantic_masks" / "images"
    advice = "iSAID publishes no labels of its test split: take val" if split == "test" else ""
    existing_folder(labels, advice)
    listing = same_names(data, root / split / "images", labels, ending="_instance_color_RGB.png")
    return dataclasses.replace(listing, advice=advice or listing.advice)


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
        return same_names(data, images, labels, _OR_A_LIST)
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
    "pascal_context59": (_list_pascal_context, "ImageSets/SegmentationContext"),
    "pascal_context60": (_list_pascal_context, "ImageSets/SegmentationContext"),
    "coco_stuff164k": (_list_ade20k, "images/{split}"),
    "mapillary_vistas": (_list_mapillary_vistas, "{split}/images"),
    "loveda": (_list_loveda, "{split}"),
    "isaid": (_list_isaid, "{split}/images"),
    "custom": (_list_custom, "{split}"),
}
