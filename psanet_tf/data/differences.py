"""Fingerprints of data, and what makes two of them differ, in words."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from psanet_tf.files import atomic_file

_FORMAT = 1
_SHOWN_CLASSES = 5


@dataclasses.dataclass(frozen=True)
class FileMark:
    """A file, or an image or label inside of a TFRecord.

    Attributes:
        path: under the root of the data where it lies there, for messages; no part of the identity.
        size: bytes.
        digest: BLAKE2b of the contents, 128 bits, hexadecimal.
    """

    path: str
    size: int
    digest: str

    def same_contents(self, other: "FileMark") -> bool:
        return (self.size, self.digest) == (other.size, other.digest)


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Images, labels and classes of one split.

    Attributes:
        split: the dataset's own name of it.
        class_names: one per train id.
        label_rule: how values in label files become train ids, in words.
        images: {name of the example: (FileMark of the image, FileMark of its labels)}.
    """

    split: str
    class_names: tuple[str, ...]
    label_rule: str
    images: dict[str, tuple[FileMark, FileMark]]

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that are equal exactly if `describe_difference` finds nothing."""
        parts = [self.split, list(self.class_names), self.label_rule]
        parts += [
            [name, *(value for mark in self.images[name] for value in (mark.size, mark.digest))]
            for name in sorted(self.images)
        ]
        return digest_of(json.dumps(parts).encode())

    def subset(self, names: Iterable[str]) -> "Fingerprint":
        """The fingerprint of some of the images."""
        return dataclasses.replace(self, images={name: self.images[name] for name in names})

    def with_digests(self, digests: Mapping[str, tuple[str, str]]) -> "Fingerprint":
        """The same with other digests: `digests` is {name: (of the image, of the labels)}."""
        images = {
            name: tuple(
                dataclasses.replace(mark, digest=digest) for mark, digest in zip(marks, digests[name], strict=True)
            )
            for name, marks in self.images.items()
        }
        return dataclasses.replace(self, images=images)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes back; plain lists and strings, for JSON."""
        return {
            "format": _FORMAT,
            "split": self.split,
            "class_names": list(self.class_names),
            "label_rule": self.label_rule,
            "images": {
                name: [list(dataclasses.astuple(mark)) for mark in marks] for name, marks in self.images.items()
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fingerprint":
        """Raises ValueError if `values` is not what `to_dict` gives."""
        try:
            if values["format"] != _FORMAT:
                raise ValueError(f"format {values['format']}, this version writes {_FORMAT}")
            images = {
                str(name): (FileMark(*image), FileMark(*label)) for name, (image, label) in values["images"].items()
            }
            return cls(values["split"], tuple(values["class_names"]), values["label_rule"], images)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a fingerprint of data: {error!r}") from None

    def save(self, path: str | os.PathLike) -> None:
        """Writes JSON; an older file stays until the new one is whole."""
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict()), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Fingerprint":
        """Reads a file of `save`.

        Raises:
            ValueError: the file is damaged; the message names it.
            FileNotFoundError: there is no such file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error})") from None


def describe_difference(old: Fingerprint, new: Fingerprint) -> list[str]:
    """What makes two fingerprints differ, in words, classes first.

    Args:
        old: Fingerprint of what is kept.
        new: Fingerprint of the data as they are now.

    Returns:
        list of texts such as "3 of 20 labels of split 'val' changed (first: annotations/p3.png)"; empty if the two
        are equal.
    """
    lines = []
    if old.split != new.split:
        lines.append(f"the split was {old.split!r}, is {new.split!r}")
    lines += describe_classes(old.class_names, new.class_names)
    if old.label_rule != new.label_rule:
        lines.append(f"label values were read so: {old.label_rule}; now: {new.label_rule}")
    count = len(new.images)
    gone = [name for name in old.images if name not in new.images]
    added = [name for name in new.images if name not in old.images]
    if gone or added:
        lines.append(f"split {new.split!r} had {len(old.images)} images, has {count}")
    lines += _counted(gone, len(old.images), "images", "are gone", lambda name: old.images[name][0].path)
    lines += _counted(added, count, "images", "are new", lambda name: new.images[name][0].path)
    return lines + describe_changed(old, new)


def describe_changed(old: Fingerprint, new: Fingerprint) -> list[str]:
    """As `describe_difference`, of images and labels alone that are in both and differ."""
    lines = []
    for index, what in enumerate(("images", "labels")):
        changed = changed_images(old, new, index)
        lines += _counted(
            changed,
            len(new.images),
            f"{what} of split {new.split!r}",
            "changed",
            lambda name, index=index: new.images[name][index].path,
        )
    return lines


def describe_classes(old: Iterable[str], new: Iterable[str]) -> list[str]:
    """How two sequences of class names differ, in words; an empty list if they do not."""
    old, new = list(old), list(new)
    if old == new:
        return []
    pairs = [
        f"class {index} was {old[index]!r}, is {new[index]!r}"
        for index in range(min(len(old), len(new)))
        if old[index] != new[index]
    ]
    more = [f"and {len(pairs) - _SHOWN_CLASSES} more classes"] if len(pairs) > _SHOWN_CLASSES else []
    lines = pairs[:_SHOWN_CLASSES] + more
    if len(old) != len(new):
        return [f"there were {len(old)} classes, are {len(new)}", *lines]
    if sorted(old) == sorted(new):
        return ["the class names are in another order", *lines]
    return lines


def changed_images(old: Fingerprint, new: Fingerprint, index: int | None = None) -> list[str]:
    """Names that both fingerprints have, of which the image (`index` 0), the labels (1) or either (None) differ."""
    indices = (0, 1) if index is None else (index,)
    return [
        name
        for name, marks in new.images.items()
        if name in old.images and not all(marks[i].same_contents(old.images[name][i]) for i in indices)
    ]


def digest_of(contents: bytes) -> str:
    """BLAKE2b of bytes, 128 bits, hexadecimal."""
    return hashlib.blake2b(contents, digest_size=16).hexdigest()


def _counted(names, count, what, happened, path_of):
    if not names:
        return []
    return [f"{len(names)} of {count} {what} {happened} (first: {path_of(names[0])})"]
