"""COCO's instances: polygons and masks of things, in one JSON file for a split.

https://cocodataset.org/#format-data
"""

import collections
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from psanet_tf.data.findings import counted
from psanet_tf.data.importing.annotation_files import ImageFolder, LeftOut, read_json, shapes_source
from psanet_tf.data.importing.run_lengths import coco_mask
from psanet_tf.data.importing.shapes import Shape, Shapes
from psanet_tf.data.importing.source import Source, split_of, split_of_path


def is_coco(tree: object) -> bool:
    """Whether the contents of a JSON file are COCO's."""
    return isinstance(tree, dict) and {"images", "annotations", "categories"} <= tree.keys()


def read_coco(paths: Sequence[Path], images: Path, skip: Collection[str]) -> Source:
    """The images of COCO's files and their things, large ones below small ones.

    COCO's things have no order, and may overlap: what is smaller is taken to be in front.

    Args:
        paths: of the JSON files, of one split each.
        images: folder of the images.
        skip: ``"box"``: leave out annotations that are boxes only.

    Raises:
        ValueError: files that contradict each other, a damaged annotation, or boxes only.
        ImportError: compressed masks, and pycocotools is not installed.
    """
    left_out = LeftOut(skip)
    names, items, notes = [], [], []
    for path in paths:
        tree = read_json(path)
        folder = ImageFolder(images, path)
        categories = _by_id(tree["categories"], "categories", path)
        categories = {number: category["name"] for number, category in categories.items()}
        names += [name for name in categories.values() if name not in names]
        listed = _by_id(tree["images"], "images", path)
        things = collections.defaultdict(list)
        of_none = []
        for annotation in tree["annotations"]:
            (things[annotation["image_id"]] if annotation["image_id"] in listed else of_none).append(annotation)
        if of_none:
            first = of_none[0]
            notes.append(
                f"{counted(len(of_none), 'annotation')} of {path} left out, of images that it does not list (first: "
                f"{first.get('id')}, of the image with the id {first['image_id']})"
            )
        split = _split_of_file(path)
        for image in listed.values():
            where = f"{path} (image {image['file_name']})"
            found = folder.find(image["file_name"], split=split)
            size = (image["height"], image["width"])
            shapes = []
            for annotation in things[image["id"]]:
                if annotation["category_id"] not in categories:
                    raise ValueError(f"{where}: no category has the id {annotation['category_id']}")
                own = _shapes(annotation, names.index(categories[annotation["category_id"]]), size, where)
                if not own:
                    left_out.add("box", where)
                area = annotation.get("area") or sum(map(_area, own))
                shapes += [(area, shape) for shape in own]
            if found is not None:
                shapes.sort(key=lambda item: -item[0])
                items.append((found, [shape for _, shape in shapes], size, where, split))
        notes += folder.note()
    if not items:
        raise folder.nothing_found()
    return shapes_source(
        f"COCO, {', '.join(path.name for path in paths)} with {counted(len(items), 'image')}",
        [
            (found, Shapes(where, shapes, len(names), size), split or split_of_path(found.relative_to(images)))
            for found, shapes, size, where, split in items
        ],
        images,
        names,
        notes=notes + left_out.notes(),
    )


def _area(shape):
    """Square pixels, for files that do not say it."""
    if shape.mask is not None:
        return int(shape.mask.sum())
    x, y = np.asarray(shape.rings[0], float).reshape(-1, 2).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _by_id(items, what, path):
    found = {}
    for item in items:
        if found.setdefault(item["id"], item) is not item:
            raise ValueError(f"{path}: two {what} have the id {item['id']}, and annotations do not say which they mean")
    return found


def _split_of_file(path):
    """By names like instances_train2017.json, or the folder train/ of Roboflow's export."""
    words = path.stem.replace("-", "_").replace(".", "_").split("_")
    return next((split for word in words if (split := split_of(word))), None) or split_of(path.parent.name)


def _shapes(annotation, label, size, where):
    """A Shape for each part that is seen of a thing; an empty list of a box."""
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return []
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != size:
            raise ValueError(
                f"{where}: the mask of annotation {annotation.get('id')} is of {segmentation['size']} pixels, the "
                f"image of {list(size)}: is this the file of these images?"
            )
        return [Shape(label, mask=coco_mask(segmentation, where))]
    try:
        rings = [[(ring[place], ring[place + 1]) for place in range(0, len(ring), 2)] for ring in segmentation]
    except (TypeError, IndexError) as error:
        raise ValueError(f"{where}: the polygon of annotation {annotation.get('id')} is damaged: {error}") from None
    return [Shape(label, [ring]) for ring in rings]
