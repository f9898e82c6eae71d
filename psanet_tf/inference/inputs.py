"""Which files `psanet predict` labels for what a user wrote, and which it passes over."""

import dataclasses
import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

from psanet_tf.data.findings import Finding, counted
from psanet_tf.data.folders import IMAGE_SUFFIXES, STORED_SUFFIXES
from psanet_tf.data.frames import num_frames
from psanet_tf.data.image_format import ImageFormat
from psanet_tf.rasters.opening import RASTER_SUFFIXES, is_raster

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
OUTPUT_FOLDERS = ("labels", "overlays", "side_by_side", "submission", "confidence", "probabilities", "videos")
_MOVING = (".gif", ".webp", ".png", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class InputFile:
    """A file to label, and the name that its results get."""

    path: Path
    name: str


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What there is to do.

    Attributes:
        files: without duplicates, in the order in which they were asked for.
        notes: what was passed over and why, list of Finding.
    """

    files: list[InputFile]
    notes: list[Finding]


def find_inputs(inputs: Iterable[str], out: str | os.PathLike, images: ImageFormat | None = None) -> Inputs:
    """Files for what a user wrote.

    Args:
        inputs: strings, each a file, a folder (all images and videos in it, but not in folders below), or a pattern
            with ``*``, ``?`` or ``**``.
        out: folder of the results; those of an earlier call are not labelled.
        images: `ImageFormat` of what can be labelled, which tells the files that are taken of a folder; default: all
            that some network could label.

    Returns:
        Inputs; names are file names without suffix, or with as much of the path as tells them apart.

    Raises:
        FileNotFoundError: a file that is not there, a folder or pattern without images.
        ValueError: an address instead of a path, or results of an earlier call.
    """
    suffixes = _suffixes(images)
    results = [Path(out).resolve() / name for name in OUTPUT_FOLDERS]
    paths, own, others = [], [], []
    for text in map(str, inputs):
        _check_local(text)
        path = Path(text)
        if path.is_file():
            if _lies_in(path, results):
                raise ValueError(f"{path} lies among the results in {out}: choose another folder with --out")
            paths.append(path)
            continue
        if path.is_dir():
            found = sorted(path.iterdir())
        elif glob.has_magic(text):
            found = sorted(map(Path, glob.glob(text, recursive=True)))
        else:
            raise FileNotFoundError(f"there is no file or folder {text}")
        taken = [file for file in found if _is_taken(file, suffixes)]
        if not taken:
            below = _folders_with_images(found, results, suffixes)
            hint = f"; but in folders below, e.g. {below[0]}: give '{path / '**'}'" if path.is_dir() and below else ""
            raise FileNotFoundError(f"{text}: no images there (looked for {', '.join(suffixes)}){hint}")
        mine = [file for file in taken if _lies_in(file, results)]
        if len(mine) == len(taken):
            raise ValueError(f"{text} holds only results in {out}: choose another folder with --out")
        own += mine
        paths += [file for file in taken if file not in mine]
        # With ** the folders' contents are among what was found.
        others += [file for file in found if file not in taken and not (file.is_dir() and "**" in text)]
    paths = list(dict.fromkeys(paths))
    files = [InputFile(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    notes = _notes(own, list(dict.fromkeys(others)), results, out, suffixes)
    # The pages of other images may be their channels.
    return Inputs(files, notes + (_moving(paths) if images is not None and images.is_photograph else []))


def _suffixes(images):
    photographs, others = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, *RASTER_SUFFIXES), (*STORED_SUFFIXES, *RASTER_SUFFIXES)
    if images is None:
        return tuple(dict.fromkeys((*photographs, *others)))
    return photographs if images.is_photograph else others


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _check_local(text):
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        how = f"gcloud storage cp {text} ." if text.startswith("gs://") else f"curl -O {text}"
        if text.startswith("s3://"):
            how = f"aws s3 cp {text} ."
        raise ValueError(f"{text} is an address: only files of this machine are read; copy it first ({how})")


def _is_taken(path, suffixes):
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def _lies_in(path, folders):
    parents = path.resolve().parents
    return any(folder in parents for folder in folders)


def _folders_with_images(found, results, suffixes):
    """Folders among `found`, other than those of the results, that hold an image or have one below."""
    folders = [path for path in found if path.is_dir() and path.resolve() not in results]

    def has_image(folder):
        return any(_is_taken(file, suffixes) and not _lies_in(file, results) for file in folder.rglob("*"))

    return [path for path in folders if has_image(path)]


def _notes(own, others, results, out, suffixes):
    folders = _folders_with_images(others, results, suffixes)
    files = [path for path in others if not path.is_dir()]
    found = [
        (f"{counted(len(own), 'result')} of an earlier call in {out} passed over", "", own),
        (
            f"images in {counted(len(folders), 'folder')} below passed over",
            "give these folders too, or a pattern such as 'photos/**'",
            folders,
        ),
        (f"{counted(len(files), 'hidden or other file')} passed over: no images or videos", "", files),
    ]
    return [Finding(what, advice, tuple(map(str, paths)), is_problem=False) for what, advice, paths in found if paths]


def _moving(paths):
    counts = {path: num_frames(path) for path in paths if path.suffix.lower() in _MOVING and not is_raster(path)}
    several = tuple(f"{path}: {count} frames" for path, count in counts.items() if count > 1)
    if not several:
        return []
    what = f"of {counted(len(several), 'image')} with several frames or pages the first one is labelled"
    return [Finding(what, "videos are labelled frame by frame: convert to .mp4", several, is_problem=False)]


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
