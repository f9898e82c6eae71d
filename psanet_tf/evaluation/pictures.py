"""Labels picture files that have no labels of their own."""

from pathlib import Path

import numpy as np
from PIL import Image

from psanet_tf.data.readers import read_image
from psanet_tf.evaluation.parallel import on_all_devices
from psanet_tf.evaluation.submission import save_submission
from psanet_tf.files import atomic_file
from psanet_tf.visualization.colors import save_label_png
from psanet_tf.visualization.legend import legend_strip
from psanet_tf.visualization.overlay import add_legend, class_shares, overlay
from psanet_tf.visualization.sheet import picture_sheet

_SHEET_CELL_WIDTH = 1024


def label_pictures(labelers, pictures, info, out, submission=False):
    """Writes ``labels/NAME.png``, ``overlays/NAME.png`` and ``side_by_side/NAME.png`` for each picture.

    Args:
        labelers: one object per device, each with ``labels(uint8 [H, W, 3]) -> uint8 [H, W]``.
        pictures: list of `Picture`, none of them a video.
        info: DatasetInfo.
        out: folder.
        submission: also write ``submission/NAME.png`` as the dataset's test server takes it.

    Returns:
        {path: message} of the pictures that could not be read.
    """
    out = Path(out)

    def work(labeler, picture):
        try:
            image = read_image(picture.path)
        except (ValueError, OSError) as error:
            return str(error)
        _write(image, labeler.labels(image), picture.name, info, out, submission)
        return None

    results = on_all_devices(labelers, pictures, work, "labelling")
    return {picture.path: message for picture, message in results if message is not None}


def _write(image, labels, name, info, out, submission):
    save_label_png(out / "labels" / f"{name}.png", labels, info.colors)
    plain = overlay(image, labels, info.colors)
    _save(out / "overlays" / f"{name}.png", add_legend(plain, labels, info.colors, info.class_names))
    width = min(image.shape[1], _SHEET_CELL_WIDTH)
    footer = legend_strip(class_shares(labels), info.colors, info.class_names, max(320, 2 * (width + 8) + 8))
    sheet = picture_sheet([[image, plain]], ("input", "prediction"), cell_width=width, footer=footer)
    _save(out / "side_by_side" / f"{name}.png", sheet)
    if submission:
        save_submission(out / "submission" / f"{name}.png", labels, info)


def _save(path, picture):
    with atomic_file(path) as temporary:
        Image.fromarray(np.asarray(picture)).save(temporary, format="PNG")
