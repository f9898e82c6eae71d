"""What a folder, or a file, holds: which of the forms that can be imported."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from psanet_tf.data.importing.annotation_files import read_json
from psanet_tf.data.importing.class_files import read_class_files
from psanet_tf.data.importing.coco import is_coco, read_coco
from psanet_tf.data.importing.cvat import read_cvat
from psanet_tf.data.importing.label_studio import is_label_studio, read_label_studio
from psanet_tf.data.importing.labelme import is_labelme, read_labelme
from psanet_tf.data.importing.mask_folders import find_masks
from psanet_tf.data.importing.source import Source
from psanet_tf.data.importing.supervisely import is_supervisely, read_supervisely

_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Where:
    """What the user says of where things are and how they are read.

    Attributes:
        images, masks: folders, where their names do not tell, or the annotations come without the images.
        labels: whether values or colours of masks are read; None: as the files have it, if that is sure.
        palette: file of colours and classes.
        overlap: what pixels of several masks of one image are; see `ClassMasks`.
        skip: kinds of shapes to leave out.
    """

    images: Path | None = None
    masks: Path | None = None
    labels: Literal["value", "colour"] | None = None
    palette: Path | None = None
    overlap: Literal["stop", "last", "ignore"] = "stop"
    skip: Collection[str] = ()


def find_source(path: Path, where: Where) -> Source:
    """What a folder or a file holds.

    Args:
        path: a folder, unpacked if it was an archive, or an annotation file.
        where: `Where`.

    Raises:
        FileNotFoundError: nothing is there, or a folder of `where` is not.
        ValueError: several forms at a time, or none; what the readers of the forms refuse.
    """
    for folder in (where.images, where.masks):
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    if not path.exists():
        raise FileNotFoundError(f"there is no folder and no file {path}")
    if path.is_file() and path.suffix.lower() not in (".json", ".xml"):
        raise ValueError(f"{path} is no folder, and no .zip, .json or .xml: unpack other archives, and give the folder")
    root = path if path.is_dir() else path.parent
    images = where.images or root
    if where.masks is None:
        found = _annotations(path, root, images, where.skip)
        if len(found) > 1:
            raise ValueError(
                f"{path} holds {' and '.join(found)}: give the file or the folder of one of them, or --masks FOLDER "
                "for its masks"
            )
        if found:
            ((kind, read),) = found.items()
            try:
                return read()
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}: {kind} that lacks something, or is of a version that is not known here: {error!r}"
                ) from error
        if path.is_file():
            raise ValueError(f"{path} is no export of CVAT, Label Studio, LabelMe or COCO: give the folder of masks")
    return find_masks(
        root, where.images, where.masks, where.labels, read_class_files(root, where.palette), where.overlap
    )


def _annotations(path, root, images, skip):
    """{form in words: function without arguments that reads it}"""
    if path.is_dir() and is_supervisely(root):
        return {"a project of Supervisely": lambda: read_supervisely(root, None if images == root else images, skip)}
    files = [path] if path.is_file() else sorted(root.rglob("*"))
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(root).parts)]
    cvat = [file for file in files if file.suffix.lower() == ".xml" and _is_cvat(file)]
    kinds = {file: _kind(file) for file in files if file.suffix.lower() == ".json"}
    coco, studio, labelme = (
        [file for file, kind in kinds.items() if kind is test] for test in (is_coco, is_label_studio, is_labelme)
    )
    for kind, found in (("CVAT", cvat), ("Label Studio", studio)):
        if len(found) > 1:
            raise ValueError(f"{path} holds {len(found)} exports of {kind} ({_shown(found)}): give one of the files")
    readers = {}
    if cvat:
        readers[f"an export of CVAT ({cvat[0].name})"] = lambda: read_cvat(cvat[0], images, skip)
    if studio:
        readers[f"an export of Label Studio ({studio[0].name})"] = lambda: read_label_studio(studio[0], images, skip)
    if labelme:
        readers[f"files of LabelMe ({_shown(labelme)})"] = lambda: read_labelme(root, labelme, images, skip)
    if coco:
        readers[f"files of COCO ({_shown(coco)})"] = lambda: read_coco(coco, images, skip)
    return readers


def _kind(path):
    """The test that the contents of a JSON file pass, or None; large files are not kept."""
    tree = read_json(path)
    return next((test for test in (is_coco, is_label_studio, is_labelme) if test(tree)), None)


def _is_cvat(path):
    with open(path, "rb") as file:
        return b"<annotations>" in file.read(4096)


def _shown(paths):
    return ", ".join(path.name for path in paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
