"""Folders of images and masks: which file is which, and which belong together."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from psanet_tf.data.findings import counted
from psanet_tf.data.folders import IMAGE_SUFFIXES
from psanet_tf.data.importing.class_files import ClassFiles
from psanet_tf.data.importing.mask_files import ClassMasks, MaskFile, kind_of_masks
from psanet_tf.data.importing.source import Keys, Source, SourceImage, split_of, with_unique_names
from psanet_tf.data.importing.where import Where

_MASK_WORDS = {
    "mask", "masks", "label", "labels", "labelids", "annotation", "annotations", "ann", "anns", "gt", "groundtruth",
    "truth", "seg", "segs", "segmentation", "segmentations", "segmentationclass", "segmentationclassaug", "targets",
}  # fmt: skip
_IMAGE_WORDS = {"image", "images", "img", "imgs", "jpegimages", "photo", "photos", "input", "inputs", "rgb"}
# Pictures of masks, and masks of instances.
_PASSED_OVER = {"segmentationobject", "masks_human", "masks_instances", "__macosx"}
_SEPARATOR = re.compile(r"[-_. ]")


@dataclasses.dataclass(frozen=True)
class _File:
    path: Path
    relative: Path
    role: Literal["mask", "image"] | None
    split: str | None
    rest: tuple[str, ...]  # folders that say neither what it is nor of which split


@dataclasses.dataclass(frozen=True)
class _Pairing:
    """Masks of images: {image: [(mask, what its name, or its folder, has beside the image's)]}."""

    masks: Mapping[_File, Sequence[tuple[_File, str]]]
    without_image: Sequence[_File]


def find_masks(root: Path, where: Where, class_files: ClassFiles) -> Source:
    """Images and masks in the folders below `root`.

    Folders are told by their names (``images``, ``masks``, ``train/labels``, ...), masks beside their images by an
    ending (``p1_mask.png``); masks are paired by name. Several masks of one image are one per class, named by their
    folder or by what their names have beside the image's.

    Args:
        root: folder to look into.
        where: what the user says.
        class_files: files below `root` that name classes.

    Raises:
        ValueError: no images, no masks, none that belong together, masks whose form does not keep values, or options
            that have no effect on such masks.
    """
    files = _files(root, where.images, where.masks)
    photos, mask_files = _roles(files, explicit=where.masks is not None)
    if not photos:
        raise ValueError(f"{root}: no images are found below it; --images names their folder")
    if not mask_files:
        raise ValueError(
            f"{root}: {counted(len(photos), 'image')}, and no masks are found below it: --masks names their folder "
            f"(found are folders like masks, labels, annotations, and names like {photos[0].path.stem}_mask.png)"
        )
    pairing = _paired(photos, mask_files)
    if not pairing.masks:
        raise ValueError(
            f"{root}: {counted(len(photos), 'image')} and {counted(len(mask_files), 'mask')}, none of which has the "
            f"name of an image (first: {photos[0].path}, {mask_files[0].path}): masks take their images' names"
        )
    notes = _notes(photos, pairing)
    listed = _listed_splits(root)
    found = sorted(pairing.masks, key=lambda file: str(file.relative))
    names = with_unique_names([(file.path, file.relative) for file in found])
    per_class = _is_per_class(pairing)
    _refuse_without_effect(per_class, where, class_files)
    if per_class:
        keys, label_files, kind = _class_masks(pairing, found, where.overlap or "stop")
        named = {}
    else:
        paths = [pairing.masks[file][0][0].path for file in found]
        read, form = kind_of_masks(paths, where.labels, bool(class_files.colors))
        if read == "value" and class_files.is_given:
            raise ValueError(
                f"--palette names colours, and the masks hold values ({form}): leave it out and name the values, or "
                "give --labels rgb, too"
            )
        keys, label_files = Keys(read), [MaskFile(path, read) for path in paths]
        kind = f"{counted(len(found), 'image')} with masks ({form}), read by their {read}s"
        named = class_files.colors if read == "colour" else class_files.values
    items = [
        SourceImage(
            name,
            file.path,
            label,
            file.split or pairing.masks[file][0][0].split or listed.get(file.path.stem),
            where.resize_masks,
        )
        for name, file, label in zip(names, found, label_files, strict=True)
    ]
    by_color = keys.kind == "colour"
    return Source(
        kind,
        items,
        keys,
        names=named,
        ignored=frozenset(key for key, name in named.items() if name in class_files.ignored),
        order=tuple(dict.fromkeys(named.values())),
        colors={} if by_color else class_files.color_of_name,
        notes=(*class_files.notes, *notes),
    )


def _refuse_without_effect(per_class, where, class_files):
    if not per_class and where.overlap is not None:
        raise ValueError(
            f"--overlap {where.overlap} is for several masks of one image, one for each class; here no image has more "
            "than one: leave it out"
        )
    given = [name for name, is_given in (("--labels", where.labels), ("--palette", class_files.is_given)) if is_given]
    if per_class and given:
        raise ValueError(
            f"{' and '.join(given)}: there is a mask for each class, of which all but 0 is the class, whatever its "
            f"value or colour: leave {'it' if len(given) == 1 else 'them'} out"
        )


def _files(root, images, masks):
    """All image files, those in folders that the user named with their role."""
    found = {}
    for folder, role in ((masks, "mask"), (images, "image"), (None if images and masks else root, None)):
        if folder is None:
            continue
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            parts = [part.lower() for part in relative.parts]
            hidden = any(part.startswith(".") or part in _PASSED_OVER for part in parts)
            if path in found or hidden or path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
                continue
            found[path] = _file(path, relative, role)
    return list(found.values())


def _file(path, relative, role, with_splits=True):
    split, rest = None, []
    for part in relative.parts[:-1]:
        words = [word for word in re.split(r"[^a-z0-9]+", part.lower()) if word]
        splits = [name for word in words if (name := split_of(word))] if with_splits else []
        own_role = "mask" if set(words) & _MASK_WORDS else "image" if set(words) & _IMAGE_WORDS else None
        split = splits[0] if splits else split
        role = role or own_role
        if not splits and own_role is None:
            rest.append(part)
    return _File(path, relative, role, split, tuple(rest))


def _roles(files, explicit):
    """(images, masks)"""
    beside = {(file.path.parent, file.path.stem) for file in files}

    def is_mask(file):
        if file.role == "mask" or explicit:
            return file.role == "mask"
        words = _SEPARATOR.split(file.path.stem.lower())
        named = len(words) > 1 and (words[-1] in _MASK_WORDS or words[0] in _MASK_WORDS)
        return named and any((file.path.parent, stem) in beside for stem, _ in _owners(file.path.stem))

    masks = [file for file in files if is_mask(file)]
    taken = {file.path for file in masks}
    photos = [file for file in files if file.path not in taken]
    if not any(photo.split for photo in photos) and any(file.rest for file in masks):
        # masks/car/p1.png and masks/train/p1.png: the train is a class.
        masks = [_file(file.path, file.relative, file.role, with_splits=False) for file in masks]
    return photos, masks


def _owners(stem):
    """Names that an image may have whose mask is called `stem`, longest first: (name, what is beside it)."""
    cuts = [match.start() for match in _SEPARATOR.finditer(stem)]
    before = [(stem[:cut], stem[cut + 1 :]) for cut in reversed(cuts) if cut]
    after = [(stem[cut + 1 :], stem[:cut]) for cut in cuts if cut + 1 < len(stem)]
    return sorted(before + after, key=lambda pair: -len(pair[0]))


def _paired(photos, masks):
    by_name = {}
    for photo in photos:
        by_name.setdefault((photo.rest, photo.path.stem), []).append(photo)

    def image_of(mask, rest, stem):
        fitting = [
            photo
            for photo in by_name.get((rest, stem), ())
            if photo.split == mask.split or photo.split is None or mask.split is None
        ]
        if len(fitting) > 1:
            raise ValueError(
                f"{mask.path} may be of {fitting[0].path} or of {fitting[1].path}: give the images names of their own"
            )
        return fitting[0] if fitting else None

    pairs, left = {}, []
    for mask in masks:
        stem, rest = mask.path.stem, mask.rest
        candidates = [(rest, stem, "")]
        if rest:
            # masks/road/p1.png, masks/p1/road.png
            candidates += [(rest[:-1], stem, rest[-1]), (rest[:-1], rest[-1], stem)]
        candidates += [(rest, name, beside) for name, beside in _owners(stem)]
        for folders, name, beside in candidates:
            if photo := image_of(mask, folders, name):
                pairs.setdefault(photo, []).append((mask, beside))
                break
        else:
            left.append(mask)
    return _Pairing(pairs, left)


def _is_per_class(pairing):
    classes = {_class_name(beside) for found in pairing.masks.values() for _, beside in found}
    return len(classes - {""}) > 1 or any(len(found) > 1 for found in pairing.masks.values())


def _class_name(beside):
    """What is beside an image's name in the name of its mask, without words like "mask"."""
    return "_".join(word for word in _SEPARATOR.split(beside) if word and word.lower() not in _MASK_WORDS)


def _class_masks(pairing, photos, overlap):
    """(Keys, [ClassMasks], kind in words)"""
    named = {}
    for photo in photos:
        named[photo] = {}
        for mask, beside in pairing.masks[photo]:
            name = _class_name(beside) or "mask"
            if name in named[photo]:
                raise ValueError(
                    f"{photo.path} has two masks of {name!r}: {named[photo][name]} and {mask.path}; of several masks "
                    "of an image each must be of another class, named by its folder or its name; --masks names the "
                    "folder that counts"
                )
            named[photo][name] = mask.path
    names = tuple(sorted({name for masks in named.values() for name in masks}))
    paths = [path for masks in named.values() for path in masks.values()]
    kind_of_masks(paths, "value", False)
    labels = [
        ClassMasks({names.index(name): path for name, path in named[photo].items()}, names, overlap) for photo in photos
    ]
    kind = f"{counted(len(photos), 'image')} with a mask for each class ({len(paths)} in all)"
    return Keys("label", names), labels, kind


def _notes(photos, pairing):
    without = [photo for photo in photos if photo not in pairing.masks]
    notes = []
    if without:
        notes.append(f"{counted(len(without), 'image')} without a mask, left out (first: {without[0].path})")
    if pairing.without_image:
        first = pairing.without_image[0].path
        notes.append(f"{counted(len(pairing.without_image), 'mask')} without an image, left out (first: {first})")
    return notes


def _listed_splits(root):
    """{name: split} by the lists of VOC and CVAT."""
    found = {}
    for path in sorted(root.glob("ImageSets/Segmentation/*.txt")):
        if split := split_of(path.stem):
            names = [line.strip().rpartition("/")[2] for line in path.read_text(encoding="utf-8").splitlines()]
            found |= {name: split for name in names if name}
    return found
