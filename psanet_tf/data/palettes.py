"""Whether the palettes of a split's label files agree that a value means one class."""

import os
from collections.abc import Mapping


class PaletteAgreement:
    """Labels are read by index; this notes where the colours give a reason to doubt that.

    A program that fits a palette to each image gives one class another index in every file. Then two files colour the
    same index differently. Entries that occur in no pixel say nothing: palettes may be cut or filled up as one likes.

    Example:
        >>> palettes = PaletteAgreement()
        >>> for example in examples:
        ...     palettes.add(example.label_path, label_colors(example.label_path.read_bytes(), example.label_path))
        >>> palettes.problem()
    """

    def __init__(self) -> None:
        self._first = {}  # value -> (colour, path) where it occurred first
        self._conflicts = {}  # value -> (colour, path) where it had another colour first
        self._conflicting_paths = set()

    def add(self, path: str | os.PathLike, colors: Mapping[int, tuple[int, int, int]] | None) -> None:
        """Takes in one label file.

        Args:
            path: what messages call it.
            colors: from `pixels.label_colors`, None for a file without a palette.
        """
        for value, color in (colors or {}).items():
            first = self._first.setdefault(value, (color, path))
            if first[0] != color:
                self._conflicts.setdefault(value, (color, path))
                self._conflicting_paths.add(path)

    def problem(self) -> str | None:
        """Text that names two files and what they disagree about, or None."""
        if not self._conflicts:
            return None
        value = min(self._conflicts)
        (color, first), (other_color, other) = self._first[value], self._conflicts[value]
        files = f" (and {len(self._conflicting_paths) - 1} more files)" if len(self._conflicting_paths) > 1 else ""
        return (
            f"{first} and {other}{files}: different palettes: index {value} is {_shown(color)} in one and "
            f"{_shown(other_color)} in the other. Labels are read by index, so this index would be one class in both: "
            "save the labels again with one palette for all files, or as 8-bit grey PNGs of class indices"
        )


def _shown(color):
    return "({}, {}, {})".format(*color)
