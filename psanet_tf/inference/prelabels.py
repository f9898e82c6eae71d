"""Label maps in the forms in which CVAT and Label Studio take them, to be corrected there.

CVAT, "Segmentation mask 1.1": https://docs.cvat.ai/docs/dataset_management/formats/format-smask/. Label Studio, tasks
with predictions of brushes: https://labelstud.io/guide/predictions; a brush is packed as the JavaScript library
``@thi.ng/rle-pack`` does it.
"""

import io
import os
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

from psanet_tf.data.catalog import DatasetInfo, distinct_colors
from psanet_tf.files import atomic_file

_BACKGROUND = "background"  # to CVAT it is what has no label, and black
_LENGTH_BITS = (3, 4, 8, 16)  # in which a brush has the lengths of its runs
_WORD_BITS = 8
_CHANNELS = 4  # a brush is a picture in red, green, blue and alpha


def check_class_names(class_names: Sequence[str]) -> None:
    """Refuses names that CVAT's list of labels has no way to write.

    Raises:
        ValueError: one holds a colon, or begins with a number sign.
    """
    for name in class_names:
        if ":" in name or name.startswith("#"):
            raise ValueError(
                f"the class name {name!r} cannot be written into CVAT's labelmap.txt, where a colon ends a name and # "
                "begins a comment: name the class otherwise"
            )


def cvat_colors(info: DatasetInfo) -> np.ndarray:
    """uint8 [K, 3]: a colour of its own for each class, by which CVAT tells them.

    Those of `info` where they differ and none is black, which is "background" to CVAT; else made ones.
    """
    is_background = np.array([name.lower() == _BACKGROUND for name in info.class_names])
    colors = np.where(is_background[:, None], 0, info.colors).astype(np.uint8)
    unlike = len(np.unique(colors, axis=0)) == len(colors) and colors[~is_background].any(axis=1).all()
    if unlike:
        return colors
    return np.where(is_background[:, None], 0, distinct_colors(len(colors) + 1)[1:]).astype(np.uint8)


def cvat_labels(info: DatasetInfo) -> list[dict[str, Any]]:
    """The labels of a task of CVAT, as its form for labels takes them under *Raw*; without "background".

    https://docs.cvat.ai/docs/api_sdk/sdk/reference/models/label/
    """
    return [
        {"name": name, "color": _hex(color), "type": "any", "attributes": []}
        for name, color in zip(info.class_names, cvat_colors(info).tolist(), strict=True)
        if name.lower() != _BACKGROUND
    ]


def write_cvat_masks(path: str | os.PathLike, label_maps: Iterable[tuple[str, np.ndarray]], info: DatasetInfo) -> None:
    """Writes the archive that CVAT imports into a task of the same images.

    Args:
        path: the ``.zip`` file.
        label_maps: (name of the image file without its suffix, uint8 [H, W] classes), one after the other.
        info: DatasetInfo.

    Raises:
        ValueError: as `check_class_names`.
    """
    check_class_names(info.class_names)
    colors = cvat_colors(info)
    entries = [(name, color) for name, color in zip(info.class_names, colors.tolist(), strict=True)]
    if not any(name.lower() == _BACKGROUND for name in info.class_names):
        entries.insert(0, (_BACKGROUND, [0, 0, 0]))
    lines = ["# label:color_rgb:parts:actions"]
    lines += [f"{name}:{','.join(map(str, color))}::" for name, color in entries]
    names = []
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labelmap.txt", "\n".join(lines) + "\n")
        for name, labels in label_maps:
            stream = io.BytesIO()
            Image.fromarray(colors[labels]).save(stream, format="PNG")
            archive.writestr(f"SegmentationClass/{name}.png", stream.getvalue())
            names.append(name)
        archive.writestr("ImageSets/Segmentation/default.txt", "".join(f"{name}\n" for name in names))


def label_studio_task(
    image: str, labels: np.ndarray, info: DatasetInfo, score: float, model_version: str
) -> dict[str, Any]:
    """A task of Label Studio with one brush per class, in the interface of `label_studio_interface`.

    Args:
        image: its address, as Label Studio asks for it.
        labels: uint8 [H, W], classes.
        info: DatasetInfo.
        score: how sure the network is, 0 to 1; Label Studio sorts by it.
        model_version: what to call the network.
    """
    height, width = labels.shape
    result = [
        {
            "id": f"class{index}",
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush(labels == index), "brushlabels": [info.class_names[index]]},
        }
        for index in np.unique(labels).tolist()
    ]
    prediction = {"model_version": model_version, "score": score, "result": result}
    return {"data": {"image": image}, "predictions": [prediction]}


def label_studio_interface(info: DatasetInfo) -> str:
    """The labelling interface, XML, that a project of these tasks needs."""
    labels = [
        f'    <Label value={quoteattr(name)} background="{_hex(color)}"/>'
        for name, color in zip(info.class_names, info.colors.tolist(), strict=True)
    ]
    return "\n".join(
        [
            "<View>",
            '  <Image name="image" value="$image" zoom="true"/>',
            '  <BrushLabels name="label" toName="image">',
            *labels,
            "  </BrushLabels>",
            "</View>",
            "",
        ]
    )


def brush(mask: np.ndarray) -> list[int]:
    """A mask as Label Studio keeps a brush: bytes of a picture whose four channels are 255 inside and 0 outside.

    A header of the number of bytes (32 bits), the bits of a word less 1 (5) and of four kinds of lengths less 1 (4
    each); then for every run a bit that it is one, its kind of length (2 bits), its length less 1, and its word.

    Args:
        mask: bool [H, W], at least one pixel.

    Returns:
        Numbers 0 to 255.
    """
    values = np.asarray(mask, bool).ravel()
    starts = np.flatnonzero(np.diff(values, prepend=not values[0]))
    lengths = np.diff(starts, append=values.size) * _CHANNELS
    # The longest length that there are bits for.
    longest = 1 << _LENGTH_BITS[-1]
    pieces = -(-lengths // longest)
    words = np.repeat(np.where(values[starts], 255, 0), pieces)
    runs = np.full(pieces.sum(), longest)
    runs[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * longest
    kinds = np.searchsorted([1 << bits for bits in _LENGTH_BITS], runs)
    bits = np.array(_LENGTH_BITS)[kinds]
    numbers = (((4 | kinds) << bits | (runs - 1)) << _WORD_BITS) | words
    header = [(values.size * _CHANNELS, 32), (_WORD_BITS - 1, 5), *((bits - 1, 4) for bits in _LENGTH_BITS)]
    stream = [_bits(np.array([number]), np.array([width])) for number, width in header]
    stream.append(_bits(numbers, 3 + bits + _WORD_BITS))
    return np.packbits(np.concatenate(stream)).tolist()


def _hex(color):
    return "#" + bytes(color).hex()


def _bits(numbers, widths):
    """uint8 [sum of widths]: the lowest bits of each number, the most significant first."""
    places = np.arange(int(widths.max()) - 1, -1, -1)
    table = (numbers[:, None] >> places & 1).astype(np.uint8)
    return table[places < widths[:, None]]
