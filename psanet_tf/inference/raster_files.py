"""Labels large pictures: GeoTIFF in, GeoTIFF out, in bounded memory; what was killed goes on where it was."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.files import atomic_file
from psanet_tf.inference.inputs import InputFile
from psanet_tf.inference.parallel import steps_on_all_devices
from psanet_tf.inference.raster_parts import RasterParts, differing
from psanet_tf.inference.raster_strips import NO_LABEL, Strips, label_strip, strips_of
from psanet_tf.inference.raster_windows import device_of, window_of
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.progress import track
from psanet_tf.rasters import Raster, RasterView, open_raster
from psanet_tf.rasters.geotiff import rasterio_for
from psanet_tf.rasters.label_files import settings_of, write_byte_raster
from psanet_tf.visualization.overlay import add_legend, overlay
from psanet_tf.weights.files import weights_identity

_IN_WORDS = {
    "file": "the file",
    "weights": "the weights",
    "view": "bands or scale",
    "window": "the window",
    "temperature": "the calibration",
    "classes": "the classes",
    "colors": "their colours",
    "strips": "the number of devices",
}


def check_labels_rasters(segmenter: Segmenter, probabilities: bool = False, submission: bool = False) -> None:
    """Refuses, before work starts, what cannot be done with large pictures.

    Raises:
        ValueError: the segmenter sees no windows (see `window_of`), or files are wanted that there are of images alone.
        ImportError: rasterio is not installed.
    """
    if probabilities:
        raise ValueError("--probabilities is for images; of scenes and slides --confidence says how sure labels are")
    if submission:
        raise ValueError("--submission is for images of a dataset's test split, not for scenes and slides")
    rasterio_for("labelling large pictures (GeoTIFF, slides)")
    for labeler in segmenter.labelers:
        window_of(labeler)


def raster_outputs(out: str | os.PathLike, name: str, confidence: bool = False) -> dict[str, Path]:
    """{kind: file} of what `label_rasters` writes for a picture called `name`."""
    files = {"labels": Path(out) / "labels" / f"{name}_labels.tif", "overlays": Path(out) / "overlays" / f"{name}.png"}
    if confidence:
        files["confidence"] = Path(out) / "confidence" / f"{name}_confidence.tif"
    return files


def label_rasters(
    segmenter: Segmenter,
    rasters: Sequence[InputFile],
    out: str | os.PathLike,
    view: RasterView | None = None,
    confidence: bool = False,
    say: Callable[[str], None] = print,
) -> dict[Path, str]:
    """Writes ``labels/NAME_labels.tif`` and ``overlays/NAME.png``, a reduced picture, for each large picture.

    Its labels are those of `SlidingWindow` on the pixels as they are, or as `view` says. A picture whose result is
    there already, made of the same file and weights in the same way, is passed over; one that was interrupted goes on.

    Args:
        segmenter: its labelers share the work.
        rasters: list of `InputFile` of which `is_raster` holds.
        out: folder.
        view: `RasterView`.
        confidence: also write ``confidence/NAME_confidence.tif``: the probability of each label in 255ths, 0 where
            there is no image.
        say: called with lines on what is done.

    Returns:
        {path: message} of the pictures that could not be read.

    Raises:
        ValueError: the segmenter sees no windows; see `window_of`.
        ImportError: rasterio or openslide is not installed.
        NoSpaceError: there is no room; what is finished stays.
    """
    check_labels_rasters(segmenter)
    view = RasterView() if view is None else view
    windows = [window_of(labeler) for labeler in segmenter.labelers]
    made_with = _made_with(segmenter, windows[0])
    if windows[0].scales != (1.0,):
        scales = ", ".join(f"{scale:g}" for scale in windows[0].scales)
        say(f"note: scenes and slides are seen at one size; evaluate.scales ({scales}) is for images")
    failures = {}
    for raster in rasters:
        try:
            _label(segmenter, windows, raster, raster_outputs(out, raster.name, confidence), view, made_with, say)
        except (ValueError, FileNotFoundError) as error:
            failures[raster.path] = str(error)
    return failures


def _label(segmenter, windows, raster, files, view, made_with, say):
    info = segmenter.info
    with open_raster(raster.path, info.images, view) as picture:
        size, georeference = picture.size, picture.georeference
        how = _in_words(picture, windows[0], view)
        tags = _tags(picture, info)
    status = os.stat(raster.path)
    settings = {
        **made_with,
        "file": [status.st_size, status.st_mtime_ns],
        "view": [view.bands, view.scale, view.resolution],
    }
    labels_file = files["labels"]
    parts_folder = labels_file.with_name(f".{labels_file.stem}.parts")
    there = {kind: settings_of(file) for kind, file in files.items() if kind != "overlays"}
    same = all(found is not None and not differing(found, _as_json(settings)) for found in there.values())
    # The picture comes last: without it a run was interrupted after the labels.
    if same and files["overlays"].is_file():
        shutil.rmtree(parts_folder, ignore_errors=True)
        say(f"{raster.path} is labelled already: {labels_file}")
        return
    strips = strips_of(windows[0], size, at_least=len(windows))
    parts = RasterParts(parts_folder, strips, settings)
    say(f"{raster.path}: {how}")
    if parts.changed:
        # Another size may well need other strips.
        changed = [name for name in parts.changed if name != "strips"] or parts.changed
        changes = " and ".join(_IN_WORDS[name] for name in changed)
        say(f"{raster.path}: an earlier run was interrupted; {changes} differ since, it starts anew")
    _label_strips(segmenter, windows, raster, strips, parts, view, say)
    write_byte_raster(labels_file, parts.bands("labels"), size, georeference, NO_LABEL, tags, settings, info.colors)
    if "confidence" in files:
        write_byte_raster(files["confidence"], parts.bands("confidence"), size, georeference, 0, tags, settings)
    _save_picture(files["overlays"], parts, strips, info)
    parts.remove()


def _label_strips(segmenter, windows, raster, strips, parts, view, say):
    bands = len(strips.row_origins)
    missing = {strip: parts.first_missing(strip) for strip in range(len(strips.bounds))}
    to_do = [strip for strip, band in missing.items() if band < bands]
    if any(missing.values()):
        done = sum(missing.values()) / (bands * len(missing))
        say(f"{raster.path}: goes on where it was interrupted, {done:.0%} is there")
    total = sum(len(strips.bands_from(missing[strip])) * len(strips.crops_across(strip)) for strip in to_do)

    def work(device, strip):
        labeler, window = device
        with tf.device(device_of(labeler)), open_raster(raster.path, segmenter.images, view) as picture:
            for band in label_strip(window, picture, strips, strip, missing[strip]):
                if band is not None:
                    parts.save(band)
                else:
                    yield

    devices = list(zip(segmenter.labelers, windows, strict=True))
    for _ in track(steps_on_all_devices(devices, to_do, work), f"labelling {raster.name}, windows", total=total):
        pass


def _save_picture(path, parts: RasterParts, strips: Strips, info: DatasetInfo) -> None:
    labels = np.concatenate(list(_shown_labels(parts.bands("labels"), strips)))
    pixels = np.concatenate(list(parts.bands("picture")))
    has_image = labels != NO_LABEL
    # What is no image has no part in what is shown as black and as white.
    pixels[~has_image] = info.images.denormalized(np.zeros(info.images.channels, np.float32))
    shown = overlay(info.images.picture(pixels), labels, info.colors)
    shown = np.where(has_image[..., None], shown, np.uint8(255))
    with atomic_file(path) as temporary:
        Image.fromarray(add_legend(shown, labels, info.colors, info.class_names)).save(temporary, format="PNG")


def _shown_labels(bands: Iterator[np.ndarray], strips: Strips) -> Iterator[np.ndarray]:
    row = 0
    for band in bands:
        yield strips.shown(band, row, 0)
        row += len(band)


def _made_with(segmenter: Segmenter, window) -> dict[str, Any]:
    """For JSON: what of the network and the protocol tells labels from others."""
    crop = [*window.crop_size, window.stride_rate, window.flip]
    return {
        "weights": _identity(segmenter),
        "window": [*crop, segmenter.images.to_dict()],
        "temperature": segmenter.temperature,
        "classes": list(segmenter.classes),
        "colors": segmenter.info.colors.tolist(),
    }


def _identity(segmenter):
    if segmenter.path is not None:
        return weights_identity(segmenter.path)
    digest = hashlib.sha256(segmenter.model.to_json().encode())
    for weight in segmenter.model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _in_words(picture: Raster, window, view: RasterView) -> str:
    rows, columns = picture.size
    known = picture.pixel_size
    scale = f"{view.scale:g} times as large" if view.resolution is None else f"resized to {view.resolution:g}"
    scale = "the pixels as they are" if view.resolution is None and view.scale == 1 else scale
    length = f" ({known.length:.4g} {known.unit} each)" if known else ""
    height, width = window.crop_size
    return f"{rows} x {columns} pixels, {scale}{length}, in windows of {height} x {width}"


def _tags(picture: Raster, info: DatasetInfo) -> Mapping[str, str]:
    """Of the labels: which value is which class, and of slides how large a pixel is, which nothing else says."""
    tags = {f"CLASS_{index}": name for index, name in enumerate(info.class_names)}
    known = picture.pixel_size
    if known and known.unit == "micrometre":
        tags["MICROMETRES_PER_PIXEL"] = f"{known.length:.6g}"
    return tags


def _as_json(settings):
    return json.loads(json.dumps(settings))
