"""Files of a folder of images or labels: which are taken, by what name, and which are passed over."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from psanet_tf.data.findings import Finding, counted
from psanet_tf.data.near_names import around_stem

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
STORED_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".jpg", ".jpeg")
"""Of images that are no photographs."""
LABEL_SUFFIXES = (".png",)

_OTHER_IMAGES = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".tga", ".dng", ".nef", ".cr2")
_SHOWN_FOLDERS = 8


def existing_folder(path: Path, advice: str = "") -> Path:
    """`path`, if it is a folder.

    Raises:
        FileNotFoundError: it is not; the message says what lies beside it, and `advice`.
    """
    if path.is_dir():
        return path
    above = next(folder for folder in path.parents if folder.is_dir())
    there = sorted(entry.name for entry in above.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    shown = ", ".join(there[:_SHOWN_FOLDERS]) + (", ..." if len(there) > _SHOWN_FOLDERS else "")
    holds = f"{above} holds {'the folders ' + shown if there else 'no folders'}"
    raise FileNotFoundError(f"there is no folder {path} ({holds}){'; ' if advice else ''}{advice}")


def scan(folder: Path, suffixes: Collection[str]) -> tuple[list[Path], list[Path]]:
    """Entries of a folder, sorted: (files with one of the suffixes, in capitals or not; all others)."""
    taken, others = [], []
    for path in sorted(existing_folder(folder).iterdir()):
        fits = path.suffix.lower() in suffixes and not path.name.startswith(".") and not path.is_dir()
        (taken if fits else others).append(path)
    return taken, others


def by_stem(paths: Iterable[Path], advice: str) -> dict[str, Path]:
    """{name without suffix: path}.

    Raises:
        ValueError: two files have one name but for the suffix.
    """
    found, twice = {}, []
    for path in paths:
        if path.stem in found:
            twice.append((found[path.stem], path))
        found[path.stem] = path
    if twice:
        first, second = twice[0]
        more = f" ({counted(len(twice), 'such pair')})" if len(twice) > 1 else ""
        raise ValueError(f"{first.parent}: {first.name} and {second.name} have one name{more}; {advice}")
    return found


def passed_over(others: Sequence[Path], what_is_taken: str, advice: str) -> list[Finding]:
    """Findings about entries of folders that were not taken: images are a problem, anything else a note.

    Args:
        others: paths, from `scan`.
        what_is_taken: e.g. ``"images"``.
        advice: what to do about images in folders below.
    """
    hidden = [path for path in others if path.name.startswith(".")]
    folders = [path for path in others if path.is_dir() and path not in hidden]
    files = [path for path in others if not path.is_dir() and path not in hidden]
    images = [path for path in files if path.suffix.lower() in (*IMAGE_SUFFIXES, *_OTHER_IMAGES)]
    nested = {folder: sum(_is_image(path) for path in folder.rglob("*")) for folder in folders}
    findings = []
    if any(nested.values()):
        where = tuple(f"{folder}: {counted(number, 'image')}" for folder, number in nested.items() if number)
        total = counted(sum(nested.values()), "image")
        findings.append(Finding(f"{total} in folders below passed over", advice, where))
    if images:
        endings = ", ".join(sorted({path.suffix for path in images}))
        what = f"{counted(len(images), 'image')} of another form ({endings}) passed over: not read as {what_is_taken}"
        findings.append(Finding(what, "convert to PNG", tuple(map(str, images))))
    rest = (
        hidden + [folder for folder in folders if not nested[folder]] + [path for path in files if path not in images]
    )
    if rest:
        what = f"{counted(len(rest), 'hidden or other file')} passed over: no {what_is_taken}"
        findings.append(Finding(what, "", tuple(map(str, rest)), is_problem=False))
    return findings


def _is_image(path):
    return path.suffix.lower() in (*IMAGE_SUFFIXES, *_OTHER_IMAGES) and not path.name.startswith(".")


def labels_without_image(labels: Sequence[Path]) -> list[Finding]:
    """Findings about label files whose image is not there."""
    if not labels:
        return []
    what = f"{counted(len(labels), 'label file')} without an image"
    return [Finding(what, "add the images, or remove these labels", tuple(map(str, labels)))]


def naming_rule(stems: Sequence[str], paths: Iterable[Path]) -> tuple[str, list[Path]] | None:
    """Whether label files are named after their images, with something before or after the name.

    Args:
        stems: of images without labels.
        paths: files in the folder of labels that belong to no image.

    Returns:
        (how they are named, e.g. ``"{name}_mask.png"``, the paths that are named so) or None.
    """
    names = {path.name: path for path in paths}
    for stem in stems[:3]:
        found = next(filter(None, (around_stem(stem, name) for name in names)), None)
        if found:
            before, after = found
            same = [names[before + stem + after] for stem in stems if before + stem + after in names]
            return f"{before}{{name}}{after}", same
    return None
