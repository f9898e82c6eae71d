"""Lists of images and labels, as text files."""

import csv
import dataclasses
import os
import re
from pathlib import Path

from psanet_tf.data.text_files import read_lines

_ADVICE = "an image and its labels per line, e.g. images/1.jpg labels/1.png"


@dataclasses.dataclass(frozen=True)
class Pair:
    """One line of a list.

    Attributes:
        where: the list and the line's number, for messages.
        words: what the line holds, at least one text.
    """

    where: str
    words: tuple[str, ...]

    def paths(self, root: Path) -> tuple[Path, Path]:
        """Image and labels: under `root` if they are there, else as absolute paths if they are, else under `root`.

        Raises:
            ValueError: not two paths, or one that cannot be on this machine.
        """
        if len(self.words) != 2:
            advice = "put a tab or a comma between paths" + (" with spaces" if len(self.words) > 2 else "")
            raise ValueError(
                f"{self.where}: a line must hold an image and its labels, got {' '.join(self.words)!r}; {advice}"
            )
        return tuple(self._path(root, word) for word in self.words)

    def _path(self, root, word):
        if re.match(r"[A-Za-z]:[\\/]|[A-Za-z][A-Za-z0-9+.-]+://", word):
            raise ValueError(f"{self.where}: {word!r} is no path of this machine: write paths under data.root ({root})")
        # Some lists write paths under the root with a leading slash, or as Windows does.
        under = root / word.replace("\\", "/").lstrip("/")
        return Path(word) if Path(word).is_absolute() and not under.is_file() and Path(word).is_file() else under


def read_pairs(path: str | os.PathLike, key: str) -> list[Pair]:
    """The lines of a list, without empty ones and comments (lines that start with ``#``).

    What stands in a line is separated by tabs, or else by commas (with quotes as in CSV), or else by white space.

    Args:
        path: of the list, UTF-8.
        key: of the configuration that names it, for messages.

    Returns:
        list of Pair.

    Raises:
        FileNotFoundError, ValueError: no such file, or none of text.
    """
    pairs = []
    for number, line in enumerate(read_lines(path, key, _ADVICE), start=1):
        if line and not line.startswith("#"):
            pairs.append(Pair(f"line {number} of {path}", _words(line)))
    if pairs and len(pairs[0].words) == 2 and not any(Path(word).suffix for word in pairs[0].words):
        raise ValueError(f"{pairs[0].where} looks like a heading: put # before it, or remove it")
    return pairs


def _words(line):
    if "\t" in line:
        words = line.split("\t")
    elif "," in line:
        words = next(csv.reader([line], skipinitialspace=True))
    else:
        words = line.split()
    return tuple(word.strip() for word in words if word.strip())
