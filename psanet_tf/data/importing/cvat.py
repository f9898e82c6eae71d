"""CVAT's export "CVAT for images 1.1": annotations.xml with polygons, masks and ellipses.

https://docs.cvat.ai/docs/manual/advanced/xml_format/
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Collection
from pathlib import Path

from psanet_tf.data.importing.annotation_files import ImageFolder, LeftOut, hex_color, shapes_source
from psanet_tf.data.importing.run_lengths import alternating_runs
from psanet_tf.data.importing.shapes import Shape, Shapes, ellipse
from psanet_tf.data.importing.source import Source, split_of, split_of_path

_INSIDE = ("polygon", "mask", "ellipse")


def read_cvat(path: Path, images: Path, skip: Collection[str]) -> Source:
    """The images of an XML file of CVAT and their shapes, in the order of their layers (``z_order``).

    Args:
        path: the XML file.
        images: folder of the images.
        skip: kinds of shapes to leave out: box, polyline, points, cuboid, skeleton.

    Raises:
        ValueError: no such file, a video's, damaged, or with shapes that have no inside.
    """
    try:
        tree = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no XML file: {error}") from None
    if tree.find("track") is not None:
        raise ValueError(f'{path} is CVAT\'s export for video (it holds tracks): export "CVAT for images 1.1" instead')
    labels = [label for meta in tree.findall("meta") for label in meta.iter("label") if label.findtext("name")]
    colors = {label.findtext("name"): hex_color(label.findtext("color")) for label in labels}
    # Exports of old versions have no list of labels.
    names = list(dict.fromkeys([*colors, *(shape.get("label") for image in tree.findall("image") for shape in image)]))
    names = [name for name in names if name]
    folder, left_out = ImageFolder(images, path), LeftOut(skip)
    items = []
    for image in tree.findall("image"):
        name = image.get("name", "")
        found = folder.find(name)
        size = int(image.get("height")), int(image.get("width"))
        where = f"{path} (image {name})"
        shapes = sorted(image, key=lambda element: int(element.get("z_order", 0)))
        drawn = []
        for element in shapes:
            if element.tag in _INSIDE:
                drawn.append(_shape(element, names, where))
            elif element.tag != "tag":  # of the image as a whole
                left_out.add(element.tag, where)
        if found is not None:
            split = split_of(image.get("subset", "")) or split_of_path(Path(name))
            items.append((found, Shapes(where, drawn, len(names), size), split))
    if not items:
        raise folder.nothing_found()
    return shapes_source(
        f"CVAT for images, {path.name} with {len(items)} images",
        items,
        images,
        names,
        {name: color for name, color in colors.items() if color is not None},
        notes=folder.note() + left_out.notes(),
    )


def _shape(element, names, where):
    label = names.index(element.get("label"))
    try:
        if element.tag == "polygon":
            points = [tuple(map(float, point.split(","))) for point in element.get("points").split(";")]
            return Shape(label, [points])
        if element.tag == "ellipse":
            numbers = [float(element.get(key)) for key in ("cx", "cy", "rx", "ry")]
            return Shape(label, [ellipse(*numbers, float(element.get("rotation", 0)))])
        top, left, height, width = (int(element.get(key)) for key in ("top", "left", "height", "width"))
        runs = [int(length) for length in element.get("rle").split(",")]
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where}: a {element.tag} of {names[label]!r} is damaged: {error}") from None
    mask = alternating_runs(runs, height * width, where).reshape(height, width)
    return Shape(label, mask=mask, origin=(top, left))
