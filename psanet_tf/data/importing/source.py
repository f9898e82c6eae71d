"""What is found in a folder or an export: images, and labels in terms of the source's own keys."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from psanet_tf.data.label_rules import color_text

UNLABELLED = "unlabelled"
"""The key of pixels that lie in no shape and in no mask of a class."""

SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip


class Labels(Protocol):
    """The labels of one image.

    Attributes:
        where: the file or files they are from, for messages.
    """

    where: str

    def codes(self, size: tuple[int, int]) -> np.ndarray:
        """int [H, W]: the key of each pixel, as `Keys` numbers them.

        Args:
            size: rows and columns of the image file as stored, for labels that say nothing of a size themselves.

        Raises:
            ValueError: the file is of another form, or damaged; the message names it and says what to do.
        """


@dataclasses.dataclass(frozen=True)
class Keys:
    """What labels are told by, and how `Labels.codes` numbers it.

    Attributes:
        kind: "value" (the value itself is the code), "colour" (``red * 65536 + green * 256 + blue``) or "label", a
            name: codes are places in `names`, and the next one is what has no label.
        names: of kind "label".
    """

    kind: Literal["value", "colour", "label"]
    names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many codes there can be."""
        return {"value": 1 << 16, "colour": 1 << 24}.get(self.kind, len(self.names) + 1)

    def key(self, code: int) -> str:
        """ "7", "#ff8000", "road" or `UNLABELLED`"""
        if self.kind == "value":
            return str(int(code))
        if self.kind == "colour":
            return color_text(int(code))
        return (*self.names, UNLABELLED)[code]


@dataclasses.dataclass(frozen=True)
class SourceImage:
    """One image and its labels.

    Attributes:
        name: unique in the source, without a suffix.
        path: of the image file.
        labels: its `Labels`.
        split: "train", "val", "test" or None where the source does not say.
        enlarges: whether labels are enlarged that are a whole number of times smaller than the image.
    """

    name: str
    path: Path
    labels: Labels
    split: str | None = None
    enlarges: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """All that was found.

    Attributes:
        kind: what it is, in words.
        images: sorted by split and name.
        keys: what its labels are told by.
        names: {key: name of the class}, as far as the source says.
        ignored: keys that, as the source says, are no class.
        order: the names in the source's order.
        colors: {name: (red, green, blue)}, as far as the source says.
        notes: what is worth knowing, in words: files passed over, shapes left out.
    """

    kind: str
    images: Sequence[SourceImage]
    keys: Keys
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    order: tuple[str, ...] = ()
    colors: dict[str, tuple[int, int, int]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def split_of(name: str) -> str | None:
    """ "train" of a folder or list called ``training`` or ``Train2017``, or None."""
    return _SPLIT_NAMES.get(re.sub(r"(?:_set|[_-]?\d{4})$", "", name.lower()))


def split_of_path(path: Path) -> str | None:
    """The split that a folder of a relative path names, the innermost first; None if none does."""
    return next((split for part in reversed(path.parts[:-1]) if (split := split_of(part))), None)


def with_unique_names(images: Sequence[tuple[Path, Path]]) -> list[str]:
    """Names of images, by their file names where those differ, else by their paths.

    Args:
        images: (path, path relative to the source) of each.

    Raises:
        ValueError: two that no name tells apart.
    """
    stems = [relative.stem for _, relative in images]
    if len({stem.lower() for stem in stems}) == len(stems):
        return stems
    joined = ["_".join(relative.with_suffix("").parts) for _, relative in images]
    if len({name.lower() for name in joined}) == len(joined):
        return joined
    # p1.jpg and p1.png in one folder.
    names = [f"{name}_{relative.suffix[1:].lower()}" for name, (_, relative) in zip(joined, images, strict=True)]
    paths = {}
    for name, (path, _) in zip(names, images, strict=True):
        if name in paths:
            raise ValueError(f"{paths[name]} and {path} would both be called {name}: give one of them another name")
        paths[name] = path
    return names
