"""Supervisely's projects: meta.json, and for each dataset the folders img and ann.

https://docs.supervisely.com/customization-and-integration/00_ann_format_navi
"""

import base64
import io
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from psanet_tf.data.findings import counted
from psanet_tf.data.importing.annotation_files import ImageFolder, LeftOut, hex_color, read_json, shapes_source
from psanet_tf.data.importing.shapes import Shape, Shapes
from psanet_tf.data.importing.source import Source, split_of_path

_INSIDE = ("polygon", "bitmap")


def is_supervisely(root: Path) -> bool:
    """Whether a folder is such a project."""
    return (root / "meta.json").is_file() and any(root.glob("**/ann/*.json"))


def read_supervisely(root: Path, given: Path | None, skip: Collection[str]) -> Source:
    """The images of a project and the objects in them, in their order.

    Args:
        root: the folder with meta.json.
        given: folder of the images; default: ``img`` beside each ``ann``.
        skip: kinds of objects to leave out: rectangle, line, point, graph, ...

    Raises:
        ValueError: damaged, an object of no class, or objects that have no inside.
    """
    classes = read_json(root / "meta.json").get("classes", [])
    names = [item["title"] for item in classes]
    colors = {item["title"]: hex_color(item.get("color")) for item in classes}
    left_out, items, folders = LeftOut(skip), [], {}
    for path in sorted(root.glob("**/ann/*.json")):
        images = given or path.parent.parent / "img"
        if images not in folders:
            folders[images] = ImageFolder(images, path.parent)
        folder = folders[images]
        found = folder.find(path.stem)
        tree = read_json(path)
        size = tree["size"]["height"], tree["size"]["width"]
        shapes = []
        for item in tree["objects"]:
            kind = item.get("geometryType")
            if kind not in _INSIDE:
                left_out.add(str(kind), str(path))
                continue
            if item["classTitle"] not in names:
                raise ValueError(f"{path}: an object of class {item['classTitle']!r}, which meta.json does not name")
            shapes.append(_shape(item, kind, names.index(item["classTitle"]), size, path))
        if found is not None:
            items.append((found, Shapes(str(path), shapes, len(names), size), split_of_path(path.relative_to(root))))
    if not items:
        raise next(iter(folders.values())).nothing_found()
    notes = [note for folder in folders.values() for note in folder.note()]
    return shapes_source(
        f"Supervisely, {counted(len(items), 'image')}",
        items,
        root,
        names,
        {name: color for name, color in colors.items() if color is not None},
        notes=notes + left_out.notes(),
    )


def _shape(item, kind, label, size, path):
    try:
        if kind == "polygon":
            return _polygon(item["points"], label, size)
        with Image.open(io.BytesIO(zlib.decompress(base64.b64decode(item["bitmap"]["data"])))) as image:
            pixels = np.asarray(image)
        left, top = item["bitmap"]["origin"]
    except (KeyError, TypeError, ValueError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: a {kind} of {item['classTitle']!r} is damaged: {error!r}") from None
    # The last channel is alpha, where there are several.
    return Shape(label, mask=(pixels if pixels.ndim == 2 else pixels[..., -1]) > 0, origin=(top, left))


def _polygon(points, label, size):
    """Corners are whole pixels, the edges between them are inside, and those of holes outside."""
    image = Image.new("1", size[::-1])
    draw = ImageDraw.Draw(image)
    draw.polygon([tuple(point) for point in points["exterior"]], fill=1, outline=1)
    for hole in points.get("interior", ()):
        draw.polygon([tuple(point) for point in hole], fill=0, outline=0)
    return Shape(label, mask=np.asarray(image))
