"""Label Studio's export "JSON": polygons, brushes and ellipses.

https://labelstud.io/guide/export; ``JSON-MIN`` lacks the sizes of images, so it is refused.
"""

import re
from collections.abc import Collection
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from psanet_tf.data.findings import counted
from psanet_tf.data.importing.annotation_files import ImageFolder, LeftOut, read_json, shapes_source
from psanet_tf.data.importing.run_lengths import label_studio_mask
from psanet_tf.data.importing.shapes import Shape, Shapes, ellipse
from psanet_tf.data.importing.source import Source, split_of_path

_INSIDE = {"polygonlabels": "polygon", "brushlabels": "brush", "ellipselabels": "ellipse"}
_WITHOUT_INSIDE = {"rectanglelabels": "rectangle", "keypointlabels": "keypoint", "vectorlabels": "vector"}
# Regions without labels of their own kind, and masks as pictures.
_NOT_READ = ("polygon", "brush", "ellipse", "rectangle", "keypoint", "vector", "bitmask", "bitmasklabels")
# What Label Studio puts before the names of uploaded files.
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")


def is_label_studio(tree: object) -> bool:
    """Whether the contents of a JSON file are such an export, or tasks that nobody has labelled yet."""
    is_list = isinstance(tree, list) and bool(tree) and isinstance(tree[0], dict) and "data" in tree[0]
    return is_list and any(key in tree[0] for key in ("annotations", "completions", "predictions"))


def read_label_studio(path: Path, images: Path, skip: Collection[str]) -> Source:
    """The tasks of an export and the shapes in them, in their order.

    Args:
        path: the JSON file.
        images: folder of the images, under their own names or those that Label Studio gave them.
        skip: kinds of shapes to leave out: rectangle, keypoint, vector.

    Raises:
        ValueError: damaged, turned images, several annotations of a task, regions of kinds that are not read, or
            shapes that have no inside.
    """
    folder, left_out = ImageFolder(images, path), LeftOut(skip)
    names, items, unannotated = [], [], 0
    for task in read_json(path):
        image = _image_of(task, path)
        where = f"{path} (task {task.get('id')}, {image})"
        annotation = _annotation(task, where)
        if annotation is None:
            unannotated += 1
            continue
        found = folder.find(image, [_UPLOAD.sub("", image.rpartition("/")[2])])
        shapes, size = [], None
        for region in annotation.get("result", ()):
            kind = region.get("type")
            if kind in _NOT_READ:
                raise ValueError(
                    f"{where}: a region of type {kind!r} is not read here: label with PolygonLabels, BrushLabels or "
                    "EllipseLabels"
                )
            if kind in _WITHOUT_INSIDE:
                left_out.add(_WITHOUT_INSIDE[kind], where)
            if kind in _INSIDE:
                shape, size = _shape(region, names, where)
                shapes.append(shape)
        if found is not None:
            items.append((found, shapes, size, where))
    if not items:
        raise folder.nothing_found()
    notes = [f"{counted(unannotated, 'task')} without annotations, left out"] if unannotated else []
    return shapes_source(
        f"Label Studio, {path.name} with {len(items)} images",
        [
            (found, Shapes(where, shapes, len(names), size), split_of_path(found.relative_to(images)))
            for found, shapes, size, where in items
        ],
        images,
        names,
        notes=notes + folder.note() + left_out.notes(),
    )


def _image_of(task, path):
    """The path, or the name, of a task's image."""
    texts = [value for value in task.get("data", {}).values() if isinstance(value, str)]
    image = task.get("data", {}).get("image") or next((text for text in texts if "/" in text or "." in text), None)
    if not image:
        raise ValueError(f"{path}: task {task.get('id')} names no image")
    parts = urlsplit(image)
    # /data/local-files/?d=folder/p1.jpg
    return unquote(parse_qs(parts.query)["d"][0] if "d" in parse_qs(parts.query) else parts.path)


def _annotation(task, where):
    if "annotations" not in task and "completions" not in task:
        if task.get("predictions"):
            raise ValueError(
                f"{where} holds a network's labels that nobody has accepted: these are tasks to be imported into Label "
                'Studio; submit them there, and export "JSON"'
            )
        raise ValueError(f'{where} has no annotations: this is another export, choose "JSON" (not JSON-MIN)')
    kept = [item for item in task.get("annotations", task.get("completions", ())) if not item.get("was_cancelled")]
    truth = [item for item in kept if item.get("ground_truth")]
    if len(kept) > 1 and len(truth) != 1:
        raise ValueError(
            f"{where} has {len(kept)} annotations: export one of each task, or mark the one to take as ground truth"
        )
    return (truth if len(truth) == 1 else kept or [None])[0]


def _shape(region, names, where):
    """(Shape, (rows, columns) of the image)"""
    kind, value = region["type"], region.get("value", {})
    try:
        size = int(region["original_height"]), int(region["original_width"])
        (name,) = value[kind]
    except (KeyError, TypeError, ValueError):
        found = f"{region.get('original_height')} x {region.get('original_width')}"
        raise ValueError(
            f"{where}: a {_INSIDE[kind]} with the labels {value.get(kind)} and the size {found}: each needs one label, "
            "and the size of its image"
        ) from None
    if region.get("image_rotation"):
        raise ValueError(
            f"{where}: the image was turned by {region['image_rotation']} degrees in Label Studio, its file is not: "
            "turn the file and label it anew, or leave it out"
        )
    if name not in names:
        names.append(name)
    label = names.index(name)
    height, width = size
    if kind == "brushlabels":
        return Shape(label, mask=label_studio_mask(value["rle"], size, where)), size
    if kind == "ellipselabels":
        across, down = width / 100, height / 100
        ring = ellipse(
            value["x"] * across, value["y"] * down, value["radiusX"] * across, value["radiusY"] * down,
            value.get("rotation", 0),
        )  # fmt: skip
        return Shape(label, [ring]), size
    return Shape(label, [[(x * width / 100, y * height / 100) for x, y in value["points"]]]), size
