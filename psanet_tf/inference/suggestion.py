"""Which unlabelled images would teach a network most if somebody labelled them."""

import csv
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from psanet_tf.data.pixels import decode_label
from psanet_tf.data.plain_copies import png_bytes
from psanet_tf.data.readers import read_image
from psanet_tf.folders import atomic_folder
from psanet_tf.inference.image_files import check_gives_probabilities
from psanet_tf.inference.inputs import InputFile
from psanet_tf.inference.labeler import Uncertainty
from psanet_tf.inference.look_alikes import look_of, thinned
from psanet_tf.inference.parallel import on_all_devices
from psanet_tf.inference.prelabels import (
    check_class_names,
    cvat_labels,
    label_studio_interface,
    label_studio_task,
    write_cvat_masks,
)
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.visualization.heatmap import heat_overlay
from psanet_tf.visualization.overlay import class_shares, overlay
from psanet_tf.visualization.pages import data_uri, fitted, write_page

MEASURES = ("margin", "entropy")
_LOCAL_FILES = "/data/local-files/?d="  # where Label Studio hands out files of its machine
_THUMBNAIL_WIDTH = 360
_JPEG_QUALITY = 82
_MAX_CLASSES = 8  # named of one image


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """An image that is worth labelling.

    Attributes:
        file: `InputFile`.
        name: of its copy, without suffix; begins with its rank.
        score: what the images are ranked by.
        margin, entropy: means over its pixels, see `Uncertainty`.
        look_alikes: how many images were left out because they look like it.
    """

    file: InputFile
    name: str
    score: float
    margin: float
    entropy: float
    look_alikes: int


@dataclasses.dataclass(frozen=True)
class _Seen:
    """Sums over the pixels of an image by the class that they were given: [K] each."""

    pixels: np.ndarray
    margin: np.ndarray
    entropy: np.ndarray

    def mean(self, measure, weights):
        return float((getattr(self, measure) * weights).sum() / self.pixels.sum())


def suggest(
    segmenter: Segmenter,
    images: Sequence[InputFile],
    out: str | os.PathLike,
    count: int = 50,
    measure: str = "margin",
    balanced: bool = False,
    classes: Sequence[str] = (),
    similarity: float = 0.92,
    image_url: str | None = None,
) -> tuple[list[Suggestion], dict[Path, str]]:
    """Ranks images by how unsure a network is of them, and writes the first ones, labelled by it, to be corrected.

    An image's score is the mean of its pixels' uncertainty (Settles, "Active Learning Literature Survey", 2009, section
    3.1). Images that look like one with a higher score are left out: labelled, they would teach the same.

    Writes into `out`, which must not be there: ``images/``, copies whose names begin with their rank (of images that
    are no photographs pictures of them); ``suggestions.csv`` and ``suggestions.html``; ``cvat_masks.zip`` and
    ``cvat_labels.json``; ``label_studio.json`` and ``label_studio.xml`` (see `prelabels`).

    Args:
        segmenter: `Segmenter` of a network.
        images: list of `InputFile`, none of them a video.
        out: folder.
        count: how many images to suggest at most.
        measure: "margin" or "entropy", see `Uncertainty`.
        balanced: pixels count by one over the square root of the share that their class has of all pixels, as it was
            predicted, so that rare classes do (Gupta et al., "LVIS", CVPR 2019, has the root for repeated sampling).
        classes: names; only pixels that are taken for one of them count. Default: all.
        similarity: see `thinned`.
        image_url: what Label Studio puts before the name of an image to ask for it; default: the files of its own
            machine, whose document root is ``/``.

    Returns:
        (suggestions, the best first, {path: message} of the images that could not be read).

    Raises:
        ValueError: an argument out of its range, an unknown class, a network of one class, an exported or served model,
            or not one image could be read.
        FileExistsError: `out` is there.
    """
    out, info = Path(out), segmenter.info
    check_gives_probabilities(segmenter.labelers)
    weights = _class_weights(classes, info)
    check_class_names(info.class_names)
    if count < 1:
        raise ValueError(f"count must be at least 1 image, got {count}")
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {measure!r}")
    if not 0 <= similarity <= 1:
        raise ValueError(f"similarity must be 0 to 1, got {similarity}")
    if out.exists():
        raise FileExistsError(f"{out} exists already: remove it or choose another folder with --out")
    seen, failures = _look_over(segmenter, images)
    if not seen:
        raise ValueError("not one image could be read:\n  " + "\n  ".join(failures.values()))
    if balanced:
        weights = weights * _rarity(sum(item.pixels for item in seen.values()))
    scores = {image: item.mean(measure, weights) for image, item in seen.items()}
    ranking = sorted(seen, key=lambda image: (-scores[image], image.name))
    # Of those alone that come into question.
    looks = (look_of(segmenter.images.picture(read_image(image.path, segmenter.images))) for image in ranking)
    chosen = thinned(looks, count, similarity)
    suggestions = []
    for rank, (index, look_alikes) in enumerate(chosen, start=1):
        image = ranking[index]
        name = f"{rank:0{len(str(len(chosen)))}}_{re.sub(r'[^A-Za-z0-9._-]', '_', image.name)}"
        means = [seen[image].mean(name, np.ones_like(weights)) for name in MEASURES]
        suggestions.append(Suggestion(image, name, scores[image], *means, look_alikes))
    with atomic_folder(out) as folder:
        _write(folder, out, segmenter, suggestions, measure, len(seen), image_url)
    return suggestions, failures


def _class_weights(classes, info):
    if info.num_classes < 2:
        raise ValueError("a network of one class is never unsure: there is nothing to rank images by")
    if unknown := [name for name in classes if name not in info.class_names]:
        raise ValueError(f"there is no class {unknown[0]!r}; the classes are {', '.join(info.class_names)}")
    return np.array([not classes or name in classes for name in info.class_names], np.float64)


def _rarity(pixels):
    """float64 [K]: one over the root of the classes' shares, so that the mean over all pixels is 1."""
    shares = pixels / pixels.sum()
    rarity = np.divide(1, np.sqrt(shares), out=np.zeros(len(shares)), where=shares > 0)
    return rarity / (rarity * shares).sum()


def _look_over(segmenter, images):
    count = segmenter.info.num_classes

    def work(labeler, image):
        try:
            pixels = read_image(image.path, segmenter.images)
        except (ValueError, OSError) as error:
            return str(error)
        found = labeler.uncertainty(pixels)
        labels = found.labels.ravel()
        sums = [np.bincount(labels, values, count) for values in (None, found.margin.ravel(), found.entropy.ravel())]
        return _Seen(*sums)

    results = dict(on_all_devices(segmenter.labelers, images, work, "looking over"))
    failures = {image.path: results[image] for image in images if isinstance(results[image], str)}
    return {image: results[image] for image in images if isinstance(results[image], _Seen)}, failures


@dataclasses.dataclass(frozen=True)
class _Written:
    """What is left of a suggested image when its copy is there: little beside its pixels and labels.

    Attributes:
        row: of the table.
        sample: of the page.
        task: of Label Studio, JSON.
        labels: its label map, PNG.
    """

    row: list
    sample: dict
    task: str
    labels: bytes


def _write(folder, out, segmenter, suggestions, measure, looked_over, image_url):
    """Everything of `suggest` into `folder`, which will be called `out`."""
    info, images = segmenter.info, segmenter.images
    (folder / "images").mkdir()
    version = "psanet" if segmenter.path is None else Path(segmenter.path).name
    ranks = {item: rank for rank, item in enumerate(suggestions, start=1)}

    def work(labeler, item):
        # Once more, and one image at a time: what all of them are made of would be too much to keep.
        pixels = read_image(item.file.path, images)
        picture, unsure = images.picture(pixels), labeler.uncertainty(pixels)
        name = _copy(folder / "images", item, picture, images.is_photograph)
        address = f"{image_url}{quote(name)}" if image_url else _local_address(out / "images" / name)
        classes = "; ".join(f"{info.class_names[index]} {share:.4f}" for index, share in class_shares(unsure.labels))
        numbers = [f"{value:.6f}" for value in (item.score, item.margin, item.entropy)]
        return _Written(
            [ranks[item], item.file.path, f"images/{name}", *numbers, item.look_alikes, classes],
            _sample(item, ranks[item], picture, unsure, measure, info),
            json.dumps(label_studio_task(address, unsure.labels, info, 1 - item.margin, version)),
            png_bytes(unsure.labels),
        )

    found = dict(on_all_devices(segmenter.labelers, suggestions, work, "labelling"))
    written = [found[item] for item in suggestions]
    with (folder / "suggestions.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["rank", "file", "copy", "score", "margin", "entropy", "look_alikes", "classes"])
        writer.writerows(each.row for each in written)
    label_maps = ((item.name, decode_label(found[item].labels, item.name)) for item in suggestions)
    write_cvat_masks(folder / "cvat_masks.zip", label_maps, info)
    (folder / "cvat_labels.json").write_text(json.dumps(cvat_labels(info), indent=1), encoding="utf-8")
    (folder / "label_studio.json").write_text(f"[{', '.join(each.task for each in written)}]", encoding="utf-8")
    (folder / "label_studio.xml").write_text(label_studio_interface(info), encoding="utf-8")
    write_page(
        folder / "suggestions.html",
        "suggestions.html.j2",
        title=f"{len(suggestions)} of {looked_over} images to label",
        measure=measure,
        left_out=sum(item.look_alikes for item in suggestions),
        samples=[each.sample for each in written],
    )


def _copy(folder, suggestion, picture, is_photograph):
    """Copies an image; returns the name of its file."""
    if is_photograph:
        name = f"{suggestion.name}{suggestion.file.path.suffix.lower()}"
        shutil.copyfile(suggestion.file.path, folder / name)
    else:
        name = f"{suggestion.name}.png"
        Image.fromarray(picture).save(folder / name)
    return name


def _local_address(path):
    return _LOCAL_FILES + quote(str(path.resolve()).lstrip("/"))


def _sample(suggestion, rank, picture, unsure: Uncertainty, measure, info):
    labels = fitted(unsure.labels, _THUMBNAIL_WIDTH, flat=True)
    small = fitted(picture, _THUMBNAIL_WIDTH)
    heat = np.asarray(Image.fromarray(getattr(unsure, measure)).resize(labels.shape[::-1], Image.Resampling.BOX))
    shares = class_shares(unsure.labels)
    return {
        "name": suggestion.file.name,
        "rank": rank,
        "score": suggestion.score,
        "margin": suggestion.margin,
        "entropy": suggestion.entropy,
        "look_alikes": suggestion.look_alikes,
        "pictures": [
            {"title": title, "uri": data_uri(image, _JPEG_QUALITY)}
            for title, image in (
                ("image", small),
                ("labels", overlay(small, labels, info.colors)),
                (f"where it is unsure ({measure})", heat_overlay(small, heat)),
            )
        ],
        "width": small.shape[1],
        "height": small.shape[0],
        "classes": [
            {"name": info.class_names[index], "color": info.colors[index].tolist(), "percent": 100 * share}
            for index, share in shares[:_MAX_CLASSES]
        ],
        "more_classes": max(0, len(shares) - _MAX_CLASSES),
    }
