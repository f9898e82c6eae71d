"""What readers of annotation files share: finding the image that a file speaks of, and shapes without an inside."""

import collections
import itertools
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from psanet_tf.data.findings import counted
from psanet_tf.data.folders import IMAGE_SUFFIXES
from psanet_tf.data.importing.source import Keys, Source, SourceImage, split_of_path, with_unique_names


class ImageFolder:
    """The images below a folder, found by what an annotation file calls them.

    Args:
        root: folder to look into.
        where: the annotation file, for messages.
    """

    def __init__(self, root: Path, where: Path) -> None:
        self.root, self._where = root, where
        self._paths = [
            path
            for path in sorted(root.rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
        self._by_name = collections.defaultdict(list)
        for path in self._paths:
            self._by_name[path.name].append(path)
        self.missing = []

    def find(self, name: str, also: Iterable[str] = (), split: str | None = None) -> Path | None:
        """The image that is called so; None, and noted, if there is none.

        Args:
            name: a name, or a path whose last parts the image's path has.
            also: other names to try after it.
            split: of several images of the name, the one in the folder of this split is meant.

        Raises:
            ValueError: several images fit.
        """
        for text in (name, *also):
            parts = tuple(part for part in text.replace("\\", "/").split("/") if part not in ("", ".", ".."))
            named = self._by_name.get(parts[-1], []) if parts else []
            if len(named) > 1 and split is not None:
                named = [path for path in named if split_of_path(path.relative_to(self.root)) == split] or named
            # Folders count only where they are needed to tell images apart.
            for length in range(1, len(parts) + 1):
                fitting = [path for path in named if path.parts[-length:] == parts[-length:]]
                if len(fitting) == 1:
                    return fitting[0]
            if len(named) > 1:
                raise ValueError(
                    f"{self._where}: {name!r} may be {named[0]} or {named[1]}: --images names the folder of the images"
                )
        self.missing.append(name)
        return None

    def note(self) -> list[str]:
        """A note on what was not found, or none."""
        if not self.missing:
            return []
        text = f"{counted(len(self.missing), 'image')} of {self._where} not there (first: {self.missing[0]})"
        return [f"{text}, left out"]

    def nothing_found(self) -> ValueError:
        """The error to raise where not one image is there."""
        return ValueError(
            f"{self._where}: not one of its images is below {self.root} (first: "
            f"{self.missing[0] if self.missing else '-'}): export with the images, or give their folder as --images"
        )


class LeftOut:
    """Shapes that have no inside to label (boxes, lines, points): stops the import until it is told to skip them.

    Args:
        skip: kinds of shapes that the user wants left out.
    """

    def __init__(self, skip: Collection[str]) -> None:
        self._skip = skip
        self._counts = collections.Counter()
        self._first = {}

    def add(self, kind: str, where: str) -> None:
        self._counts[kind] += 1
        self._first.setdefault(kind, where)

    def notes(self) -> list[str]:
        """Notes on what is left out.

        Raises:
            ValueError: kinds that are not to be skipped.
        """
        unwanted = [kind for kind in self._counts if kind not in self._skip]
        if unwanted:
            shown = ", ".join(f"{self._counted(kind)} (first: {self._first[kind]})" for kind in unwanted)
            raise ValueError(
                f"{shown}: no outlines of things, so they say nothing of single pixels: make polygons or masks of "
                f"them, or leave them out with {' '.join(f'--skip {kind}' for kind in unwanted)}"
            )
        return [f"{self._counted(kind)} left out (--skip)" for kind in self._counts]

    def _counted(self, kind):
        plural = kind if kind.endswith("s") else f"{kind}{'es' if kind.endswith('x') else 's'}"
        return counted(self._counts[kind], kind, plural)


def read_json(path: Path) -> Any:
    """The contents of a JSON file.

    Raises:
        ValueError: it is none; the message names it.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None


def shapes_source(
    kind: str,
    images: Sequence[tuple[Path, Any, str | None]],
    root: Path,
    names: Sequence[str],
    colors: dict[str, tuple[int, int, int]] | None = None,
    ignored: Collection[str] = (),
    notes: Sequence[str] = (),
) -> Source:
    """`Source` of images and their shapes.

    Args:
        kind: in words.
        images: (path, `Labels`, split) of each.
        root: the folder of the images, for their names.
        names: of the labels.
        colors, ignored, notes: as of `Source`.

    Raises:
        ValueError: two annotations of one image.
    """
    images = sorted(images, key=lambda item: str(item[0]))
    for (path, labels, _), (other, other_labels, _) in itertools.pairwise(images):
        if path == other:
            raise ValueError(f"{path} is annotated twice, in {labels.where} and in {other_labels.where}: keep one")
    relative = [(path, path.relative_to(root) if path.is_relative_to(root) else path) for path, *_ in images]
    items = [
        SourceImage(name, path, labels, split)
        for name, (path, labels, split) in zip(with_unique_names(relative), images, strict=True)
    ]
    return Source(
        kind,
        items,
        Keys("label", tuple(names)),
        ignored=frozenset(ignored),
        order=tuple(names),
        colors=colors or {},
        notes=tuple(notes),
    )


def hex_color(text: str | None) -> tuple[int, int, int] | None:
    """(red, green, blue) of ``"#ff8000"``, or None."""
    if not text or len(text) < 7 or text[0] != "#":
        return None
    try:
        return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
    except ValueError:
        return None
