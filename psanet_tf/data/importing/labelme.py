"""LabelMe's files: one JSON for each image, beside it."""

import base64
import io
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from psanet_tf.data.findings import counted
from psanet_tf.data.importing.annotation_files import ImageFolder, LeftOut, read_json, shapes_source
from psanet_tf.data.importing.shapes import Shape, Shapes, ellipse
from psanet_tf.data.importing.source import Source, split_of_path

IGNORED = "__ignore__"
"""LabelMe's name for what is no class."""

_WITHOUT_INSIDE = ("rectangle", "line", "linestrip", "point", "points")


def is_labelme(tree: object) -> bool:
    """Whether the contents of a JSON file are one of LabelMe's."""
    return isinstance(tree, dict) and "shapes" in tree and "imagePath" in tree


def read_labelme(root: Path, paths: Sequence[Path], images: Path, skip: Collection[str]) -> Source:
    """The images of LabelMe's files and the shapes in them, in their order.

    Args:
        root: the folder of the files.
        paths: of the files.
        images: folder of the images.
        skip: kinds of shapes to leave out: rectangle, line, linestrip, point, points.

    Raises:
        ValueError: damaged, or shapes that have no inside.
    """
    folder, left_out = ImageFolder(images, root), LeftOut(skip)
    names, items = [], []
    for path in paths:
        tree = read_json(path)
        found = folder.find(str(tree["imagePath"]), [path.with_suffix(suffix).name for suffix in (".jpg", ".png")])
        shapes = []
        for item in tree["shapes"]:
            kind = item.get("shape_type") or "polygon"
            if kind in _WITHOUT_INSIDE:
                left_out.add(kind, str(path))
                continue
            if item["label"] not in names:
                names.append(item["label"])
            shapes.append(_shape(item, kind, names.index(item["label"]), path))
        size = (tree["imageHeight"], tree["imageWidth"]) if tree.get("imageHeight") and tree.get("imageWidth") else None
        if found is not None:
            items.append((found, shapes, size, path))
    if not items:
        raise folder.nothing_found()
    return shapes_source(
        f"LabelMe, {counted(len(items), 'image')}",
        [
            (found, Shapes(str(path), shapes, len(names), size), split_of_path(path.relative_to(root)))
            for found, shapes, size, path in items
        ],
        images,
        names,
        ignored={IGNORED} & {*names},
        notes=folder.note() + left_out.notes(),
    )


def _shape(item, kind, label, path):
    points = item["points"]
    if kind == "polygon":
        return Shape(label, [points])
    if kind == "circle":
        (x, y), edge = points
        radius = float(np.hypot(edge[0] - x, edge[1] - y))
        return Shape(label, [ellipse(x, y, radius, radius)])
    if kind == "mask":
        with Image.open(io.BytesIO(base64.b64decode(item["mask"]))) as image:
            mask = np.asarray(image).astype(bool)
        left, top = points[0]
        return Shape(label, mask=mask, origin=(round(top), round(left)))
    raise ValueError(f"{path}: a shape of kind {kind!r} is not known here: make a polygon or a mask of it")
