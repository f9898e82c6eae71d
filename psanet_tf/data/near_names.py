"""Files and folders that are not where they are looked for: what may be meant."""

import difflib
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path


def instead_of(path: str | os.PathLike) -> str:
    """What lies in a missing file's folder under a similar name, or which folder is missing: text for a message.

    Returns:
        ``" (is it p1_mask.png?)"``, or "" if nothing is similar.
    """
    path = Path(path)
    if not path.parent.is_dir():
        gone = next(folder for folder in (path.parent, *path.parents) if folder.parent.is_dir())
        return f" (there is no folder {gone})"
    name = similar_name(path.name, sorted(os.listdir(path.parent)))
    return f" (is it {name}?)" if name else ""


def similar_name(name: str, names: Sequence[str]) -> str | None:
    """The one of `names` that is most likely meant by `name`, or None."""
    stem = Path(name).stem
    same = (other for other in names if Path(other).stem.lower() == stem.lower())
    around = (other for other in names if around_stem(stem, other))
    # A slip of the pen; another number is another image.
    letters, numbers = _letters_and_numbers(stem)
    close = {}
    for other in names:
        other_letters, other_numbers = _letters_and_numbers(Path(other).stem)
        if other_numbers == numbers:
            close.setdefault(other_letters, other)
    slip = (close[other] for other in difflib.get_close_matches(letters, close, n=1, cutoff=0.8))
    return next(itertools.chain(same, around, slip), None)


def _letters_and_numbers(stem):
    return re.sub(r"\d+", "", stem), re.findall(r"\d+", stem)


def around_stem(stem: str, name: str) -> tuple[str, str] | None:
    """What stands before and after `stem` in a file's name, if it is the same image's: (before, after) or None.

    ``p1_mask.png`` and ``mask_p1.png`` are of ``p1``, ``p10.png`` is not.
    """
    found = re.fullmatch(rf"(.*[^A-Za-z0-9])?{re.escape(stem)}([^A-Za-z0-9].*)", name)
    return found and (found.group(1) or "", found.group(2))


def right_root(root: Path, mark: str) -> Path | None:
    """The folder that `data.root` should be, if `mark` lies a level or two above or below it.

    Args:
        root: Path, in which there is no `mark`.
        mark: relative path that tells the layout, e.g. ``"images/training"``.

    Returns:
        Path or None.
    """
    above = list(root.absolute().parents[:2])
    below = [*sorted(root.glob("*")), *sorted(root.glob("*/*"))]
    return next((folder for folder in above + below if (folder / mark).exists()), None)
