"""What a folder, or a file, holds: which of the forms that can be imported."""

import dataclasses
from pathlib import Path

from psanet_tf.data.importing.annotation_files import read_json
from psanet_tf.data.importing.class_files import read_class_files
from psanet_tf.data.importing.coco import is_coco, read_coco
from psanet_tf.data.importing.cvat import read_cvat
from psanet_tf.data.importing.label_studio import is_label_studio, read_label_studio
from psanet_tf.data.importing.labelme import is_labelme, read_labelme
from psanet_tf.data.importing.mask_folders import find_masks
from psanet_tf.data.importing.source import Source
from psanet_tf.data.importing.supervisely import is_supervisely, read_supervisely
from psanet_tf.data.importing.where import Where

_SHOWN = 5


def find_source(path: Path, where: Where) -> Source:
    """What a folder or a file holds.

    Args:
        path: a folder, unpacked if it was an archive, or an annotation file.
        where: `Where`.

    Raises:
        FileNotFoundError: nothing is there, or a folder of `where` is not.
        ValueError: several forms at a time, or none; options that have no effect on what is found; what the readers of
            the forms refuse.
    """
    for folder in (where.images, where.masks):
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    if not path.exists():
        raise FileNotFoundError(f"there is no folder and no file {path}")
    if path.is_file() and path.suffix.lower() not in (".json", ".xml"):
        raise ValueError(f"{path} is no folder, and no .zip, .json or .xml: unpack other archives, and give the folder")
    if path.is_file() and where.masks is not None:
        raise ValueError(f"--masks {where.masks} beside the file {path}: leave it out, or give a folder of images")
    root = path if path.is_dir() else path.parent
    images = where.images or root
    broken = {}
    if where.masks is None:
        found, broken = _annotations(path, root, images, where.skip)
        if len(found) > 1:
            raise ValueError(
                f"{path} holds {' and '.join(found)}: give the file or the folder of one of them, or --masks FOLDER "
                "for its masks"
            )
        if found:
            ((kind, read),) = found.items()
            _refuse_options_of_masks(where, path, kind)
            try:
                return _with_notes(read(), broken)
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}: {kind} that lacks something, or is of a version that is not known here: {error!r}"
                ) from error
        if path.is_file():
            raise ValueError(f"{path} is no export of CVAT, Label Studio, LabelMe or COCO: give the folder of masks")
    if where.skip:
        raise ValueError(
            f"--skip {' '.join(where.skip)} leaves out shapes of annotation files, and there are none in {path}: leave "
            "the option out"
        )
    try:
        source = find_masks(root, where, read_class_files(root, where.palette))
    except ValueError as error:
        if not broken:
            raise
        raise ValueError(f"{error}; {_no_json(broken)}: if that is the annotations, export them anew") from None
    return _with_notes(source, broken)


def _refuse_options_of_masks(where, path, kind):
    given = {
        "--labels": where.labels is not None,
        "--palette": where.palette is not None,
        "--overlap": where.overlap is not None,
        "--resize-masks": where.resize_masks,
    }
    names = [name for name, is_given in given.items() if is_given]
    if names:
        say, them = ("says", "it") if len(names) == 1 else ("say", "them")
        raise ValueError(
            f"{', '.join(names)} {say} how files of masks are read, and {path} holds {kind}: leave {them} out"
        )


def _with_notes(source, broken):
    return dataclasses.replace(source, notes=(*source.notes, f"{_no_json(broken)}: passed over")) if broken else source


def _no_json(broken):
    """Files that cannot be read, in words: the first one's error."""
    more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    return f"{next(iter(broken.values()))}{more}"


def _annotations(path, root, images, skip):
    """({form in words: function without arguments that reads it}, {JSON file that cannot be read: error})"""
    if path.is_dir() and is_supervisely(root):
        project = {"a project of Supervisely": lambda: read_supervisely(root, None if images == root else images, skip)}
        return project, {}
    files = [path] if path.is_file() else sorted(root.rglob("*"))
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(root).parts)]
    cvat = [file for file in files if file.suffix.lower() == ".xml" and _is_cvat(file)]
    kinds, broken = {}, {}
    for file in files:
        if file.suffix.lower() == ".json":
            try:
                kinds[file] = _kind(file)
            except ValueError as error:
                if path.is_file():
                    raise
                broken[file] = error
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
    json_files = [*studio, *labelme, *coco]
    if broken and json_files:
        raise ValueError(
            f"{_no_json(broken)}: beside {_shown(json_files)} it may be one of the annotations: export it anew, or "
            "move it elsewhere"
        )
    return readers, broken


def _kind(path):
    """The test that the contents of a JSON file pass, or None; large files are not kept."""
    tree = read_json(path)
    return next((test for test in (is_coco, is_label_studio, is_labelme) if test(tree)), None)


def _is_cvat(path):
    with open(path, "rb") as file:
        return b"<annotations>" in file.read(4096)


def _shown(paths):
    return ", ".join(path.name for path in paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
