"""Labels image files that have no labels of their own."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.readers import read_image
from psanet_tf.files import atomic_file
from psanet_tf.inference.inputs import InputFile
from psanet_tf.inference.labeler import GivesProbabilities, LabelsImages
from psanet_tf.inference.parallel import on_all_devices
from psanet_tf.inference.probability_files import save_confidence, save_probabilities
from psanet_tf.visualization.colors import save_label_png
from psanet_tf.visualization.legend import legend_strip
from psanet_tf.visualization.overlay import add_legend, class_shares, overlay
from psanet_tf.visualization.sheet import image_sheet

_SHEET_CELL_WIDTH = 1024


def is_labelled(
    image: InputFile,
    out: str | os.PathLike,
    confidence: bool = False,
    probabilities: bool = False,
    submission: bool = False,
) -> bool:
    """Whether everything that is asked for is in the folder `out` for an image; arguments as of `label_images`."""
    kinds = {"labels": True, "overlays": True, "side_by_side": True, "confidence": confidence, "submission": submission}
    files = [f"{kind}/{image.name}.png" for kind, wanted in kinds.items() if wanted]
    files += [f"probabilities/{image.name}.npz"] if probabilities else []
    return all((Path(out) / file).is_file() for file in files)


def label_images(
    labelers: Sequence[LabelsImages],
    images: Sequence[InputFile],
    info: DatasetInfo,
    out: str | os.PathLike,
    write_also: Callable[[str, np.ndarray], None] | None = None,
    confidence: bool = False,
    probabilities: bool = False,
) -> dict[Path, str]:
    """Writes ``labels/NAME.png``, ``overlays/NAME.png`` and ``side_by_side/NAME.png`` for each image.

    Args:
        labelers: one object per device, each with ``labels([H, W, C]) -> uint8 [H, W]``.
        images: list of `InputFile`, none of them a video.
        info: DatasetInfo.
        out: folder.
        write_also: called with the NAME and the uint8 label map [H, W] of each image, for further files.
        confidence: also write ``confidence/NAME.png``, see `save_confidence`.
        probabilities: also write ``probabilities/NAME.npz``, see `save_probabilities`.

    Returns:
        {path: message} of the images that could not be read.

    Raises:
        ValueError: `confidence` or `probabilities` of labelers that give labels only.
    """
    out = Path(out)
    if confidence or probabilities:
        check_gives_probabilities(labelers)

    def work(labeler, image):
        try:
            pixels = read_image(image.path, info.images)
        except (ValueError, OSError) as error:
            return str(error)
        labels, sure, shares = _labelled(labeler, pixels, confidence, probabilities)
        _write(info.images.picture(pixels), labels, image.name, info, out)
        if write_also is not None:
            write_also(image.name, labels)
        if confidence:
            save_confidence(out / "confidence" / f"{image.name}.png", sure)
        if probabilities:
            save_probabilities(out / "probabilities" / f"{image.name}.npz", shares, info.class_names)
        return None

    results = on_all_devices(labelers, images, work, "labelling")
    return {image.path: message for image, message in results if message is not None}


def check_gives_probabilities(labelers: Sequence[LabelsImages]) -> None:
    """Refuses, before work starts, to ask labelers how sure they are that do not know.

    Raises:
        ValueError: a SavedModel or a served model, which give labels only.
    """
    if not all(isinstance(labeler, GivesProbabilities) for labeler in labelers):
        raise ValueError(
            "an exported SavedModel or a served model gives labels only: for confidence and probabilities load the "
            "weights that it was made of"
        )


def _labelled(labeler, pixels, confidence, probabilities):
    """Labels, confidence and probabilities of one pass; None for what is not asked for."""
    if probabilities:
        shares = labeler(pixels)
        return shares.argmax(-1).astype(np.uint8), shares.max(-1), shares
    if confidence:
        return *labeler.labels_and_confidence(pixels), None
    return labeler.labels(pixels), None, None


def _write(image, labels, name, info, out):
    save_label_png(out / "labels" / f"{name}.png", labels, info.colors)
    plain = overlay(image, labels, info.colors)
    _save(out / "overlays" / f"{name}.png", add_legend(plain, labels, info.colors, info.class_names))
    width = min(image.shape[1], _SHEET_CELL_WIDTH)
    footer = legend_strip(class_shares(labels), info.colors, info.class_names, max(320, 2 * (width + 8) + 8))
    sheet = image_sheet([[image, plain]], ("input", "prediction"), cell_width=width, footer=footer)
    _save(out / "side_by_side" / f"{name}.png", sheet)


def _save(path, image):
    with atomic_file(path) as temporary:
        Image.fromarray(np.asarray(image)).save(temporary, format="PNG")
