"""Labels picture files that have no labels of their own."""

import dataclasses
import glob
from pathlib import Path

import numpy as np
from PIL import Image

from psanet_tf.data.readers import IMAGE_SUFFIXES, read_image
from psanet_tf.evaluation.parallel import on_all_devices
from psanet_tf.evaluation.submission import save_submission
from psanet_tf.files import atomic_file
from psanet_tf.visualization.colors import save_label_png
from psanet_tf.visualization.legend import legend_strip
from psanet_tf.visualization.overlay import add_legend, class_shares, overlay
from psanet_tf.visualization.sheet import picture_sheet

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
_SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
_SHEET_CELL_WIDTH = 1024


@dataclasses.dataclass(frozen=True)
class Picture:
    """A file to label, and the name that its results get."""

    path: Path
    name: str


def find_pictures(inputs):
    """Files for what a user wrote.

    Args:
        inputs: strings, each a file, a folder (all pictures and videos in it), or a pattern with ``*``, ``?`` or
            ``**``.

    Returns:
        list of Picture without duplicates, in the order of `inputs`; names are file names without suffix, or with as
        much of the path as tells them apart.

    Raises:
        FileNotFoundError: a file that is not there, a folder or pattern without pictures.
    """
    paths = []
    for text in map(str, inputs):
        path = Path(text)
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if is_picture_or_video(file))
        elif path.is_file():
            found = [path]
        elif glob.has_magic(text):
            found = sorted(file for file in map(Path, glob.glob(text, recursive=True)) if is_picture_or_video(file))
        else:
            raise FileNotFoundError(f"there is no file or folder {text}")
        if not found:
            raise FileNotFoundError(f"{text}: no pictures there (looked for {', '.join(_SUFFIXES)})")
        paths += found
    paths = list(dict.fromkeys(paths))
    return [Picture(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def is_picture_or_video(path):
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def is_video(path):
    return path.suffix.lower() in VIDEO_SUFFIXES


def label_pictures(labelers, pictures, info, out, submission=False):
    """Writes ``labels/NAME.png``, ``overlays/NAME.png`` and ``side_by_side/NAME.png`` for each picture.

    Args:
        labelers: one object per device, each with ``labels(uint8 [H, W, 3]) -> uint8 [H, W]``.
        pictures: list of Picture, none of them a video.
        info: DatasetInfo.
        out: folder.
        submission: also write ``submission/NAME.png`` as the dataset's test server takes it.

    Returns:
        {path: message} of the pictures that could not be read.
    """
    out = Path(out)

    def work(labeler, picture):
        try:
            image = read_image(picture.path, upright=True)
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


def _names(paths):
    """One name per path; those with equal stems get suffixes, or their folders' names too."""
    candidates = (
        lambda path: path.stem,
        lambda path: path.name,
        lambda path: "_".join(path.parts).lstrip("/_"),
    )
    names = [""] * len(paths)
    waiting = list(range(len(paths)))
    for candidate in candidates:
        proposed = {index: candidate(paths[index]) for index in waiting}
        taken = [*names, *proposed.values()]
        for index in list(waiting):
            if taken.count(proposed[index]) == 1:
                names[index] = proposed[index]
                waiting.remove(index)
    for index in waiting:
        names[index] = f"{paths[index].stem}_{index}"
    return names
