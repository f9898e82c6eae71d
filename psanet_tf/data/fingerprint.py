"""What a split's data are, to the byte: so that nothing made from other data is taken for theirs.

Every picture and label file is hashed whole. A hash is kept, in a cache file, for as long as the file's size and its
times of change (mtime and ctime, in nanoseconds) stay, so later starts only ask the file system for those. What that
would miss is a file that is changed with the clock set back, or on a file system that doesn't keep these times.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from psanet_tf.data.catalog import OUT_OF_RANGE, info_of, label_value_table
from psanet_tf.data.readers import has_train_ids, list_examples
from psanet_tf.data.records import RecordExample
from psanet_tf.files import atomic_file
from psanet_tf.progress import track

_FORMAT = 1
_SHOWN_CLASSES = 5
# A file may be changed again without a new time within the clock's tick, so hashes of files this young are not kept.
_SETTLED_NS = 2_000_000_000
_PROGRESS_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class FileMark:
    """A file, or a picture or label inside of a TFRecord.

    Attributes:
        path: under the root of the data where it lies there, for messages; no part of the identity.
        size: bytes.
        digest: BLAKE2b of the contents, 128 bits, hexadecimal.
    """

    path: str
    size: int
    digest: str

    def same_contents(self, other):
        return (self.size, self.digest) == (other.size, other.digest)


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Pictures, labels and classes of one split.

    Attributes:
        split: the dataset's own name of it.
        class_names: one per train id.
        label_rule: how values in label files become train ids, in words.
        pictures: {name of the example: (FileMark of the picture, FileMark of its labels)}.
    """

    split: str
    class_names: tuple[str, ...]
    label_rule: str
    pictures: dict[str, tuple[FileMark, FileMark]]

    @property
    def digest(self):
        """32 hexadecimal digits that are equal exactly if `describe_difference` finds nothing."""
        parts = [self.split, list(self.class_names), self.label_rule]
        parts += [
            [name, *(value for mark in self.pictures[name] for value in (mark.size, mark.digest))]
            for name in sorted(self.pictures)
        ]
        return _digest(json.dumps(parts).encode())

    def subset(self, names):
        """The fingerprint of some of the pictures."""
        return dataclasses.replace(self, pictures={name: self.pictures[name] for name in names})

    def with_digests(self, digests):
        """The same with other digests: `digests` is {name: (of the picture, of the labels)}."""
        pictures = {
            name: tuple(
                dataclasses.replace(mark, digest=digest) for mark, digest in zip(marks, digests[name], strict=True)
            )
            for name, marks in self.pictures.items()
        }
        return dataclasses.replace(self, pictures=pictures)

    def to_dict(self):
        """What `from_dict` takes back; plain lists and strings, for JSON."""
        return {
            "format": _FORMAT,
            "split": self.split,
            "class_names": list(self.class_names),
            "label_rule": self.label_rule,
            "pictures": {
                name: [list(dataclasses.astuple(mark)) for mark in marks] for name, marks in self.pictures.items()
            },
        }

    @classmethod
    def from_dict(cls, values):
        """Raises ValueError if `values` is not what `to_dict` gives."""
        try:
            if values["format"] != _FORMAT:
                raise ValueError(f"format {values['format']}, this version writes {_FORMAT}")
            pictures = {
                str(name): (FileMark(*image), FileMark(*label)) for name, (image, label) in values["pictures"].items()
            }
            return cls(values["split"], tuple(values["class_names"]), values["label_rule"], pictures)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a fingerprint of data: {error!r}") from None

    def save(self, path):
        """Writes JSON; an older file stays until the new one is whole."""
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict()), encoding="utf-8")

    @classmethod
    def load(cls, path):
        """Reads a file of `save`.

        Raises:
            ValueError: the file is damaged; the message names it.
            FileNotFoundError: there is no such file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error})") from None


def data_fingerprint(data, split, cache=None, examples=None):
    """The fingerprint of one split, as it is on disk now.

    Args:
        data: a `DataSection`.
        split: the dataset's own name of the split.
        cache: file in which hashes are kept from one call to the next, for several splits and datasets if need be;
            one that cannot be read or written is done without.
        examples: list of `Example`; default: all of the split.

    Returns:
        Fingerprint.

    Raises:
        FileNotFoundError, ValueError: as `list_examples` and `info_of`.
    """
    info = info_of(data)
    examples = list_examples(data, split) if examples is None else examples
    hashes = _Hashes(cache)
    marks = hashes.of(examples, Path(data.root), split)
    hashes.save()
    records = isinstance(examples[0], RecordExample)
    table = label_value_table(info, train_ids=records or has_train_ids(examples[0].label_path))
    return Fingerprint(split, info.class_names, _rule_in_words(table, info), marks)


def describe_difference(old, new):
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
    count = len(new.pictures)
    gone = [name for name in old.pictures if name not in new.pictures]
    added = [name for name in new.pictures if name not in old.pictures]
    if gone or added:
        lines.append(f"split {new.split!r} had {len(old.pictures)} pictures, has {count}")
    lines += _counted(gone, len(old.pictures), "pictures", "are gone", lambda name: old.pictures[name][0].path)
    lines += _counted(added, count, "pictures", "are new", lambda name: new.pictures[name][0].path)
    return lines + describe_changed(old, new)


def describe_changed(old, new):
    """As `describe_difference`, of pictures and labels alone that are in both and differ."""
    lines = []
    for index, what in enumerate(("pictures", "labels")):
        changed = changed_pictures(old, new, index)
        lines += _counted(
            changed,
            len(new.pictures),
            f"{what} of split {new.split!r}",
            "changed",
            lambda name, index=index: new.pictures[name][index].path,
        )
    return lines


def describe_classes(old, new):
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


def changed_pictures(old, new, index=None):
    """Names that both fingerprints have, of which the picture (`index` 0), the labels (1) or either (None) differ."""
    indices = (0, 1) if index is None else (index,)
    return [
        name
        for name, marks in new.pictures.items()
        if name in old.pictures and not all(marks[i].same_contents(old.pictures[name][i]) for i in indices)
    ]


def file_digest(path):
    """BLAKE2b of a file's contents, 128 bits, hexadecimal; about 1 GB per second and thread.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


class _Hashes:
    """Hashes of files, some of them from an earlier time."""

    def __init__(self, cache):
        self._cache = cache and Path(cache)
        self._known = {}
        self._changed = False
        if self._cache is not None:
            with contextlib.suppress(OSError, ValueError):
                known = json.loads(self._cache.read_text(encoding="utf-8"))
                self._known = known if isinstance(known, dict) else {}

    def of(self, examples, root, split):
        """{name: (FileMark, FileMark)}."""
        status = {}
        for example in examples:
            for path in (example.image_path, example.label_path):
                if path not in status:
                    status[path] = os.stat(path)
        now = time.time_ns()
        waiting, marks = [], {}
        for example in examples:
            known = [self._lookup(key, status[path]) for key, path in _keys(example)]
            if None in known:
                waiting.append(example)
            else:
                marks[example.name] = _marks(example, root, known)
        bytes_waiting = sum(status[path].st_size for path in {path for item in waiting for _, path in _keys(item)})
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            hashed = pool.map(_hash, waiting)
            if bytes_waiting > _PROGRESS_BYTES:
                hashed = track(hashed, f"taking fingerprints of {split}", len(waiting))
            for example, found in zip(waiting, hashed, strict=True):
                marks[example.name] = _marks(example, root, found)
                for (key, path), values in zip(_keys(example), found, strict=True):
                    self._keep(key, status[path], values, now)
        return {example.name: marks[example.name] for example in examples}

    def save(self):
        if self._cache is None or not self._changed:
            return
        # Without it the next start takes longer, that is all.
        with contextlib.suppress(OSError), atomic_file(self._cache) as temporary:
            temporary.write_text(json.dumps(self._known), encoding="utf-8")

    def _lookup(self, key, status):
        entry = self._known.get(key)
        if not isinstance(entry, list) or len(entry) != 5 or entry[:3] != _times(status):
            return None
        return entry[3], entry[4]

    def _keep(self, key, status, values, now):
        if now - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS:
            self._known.pop(key, None)
            return
        self._known[key] = [*_times(status), *values]
        self._changed = True


def _times(status):
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _keys(example):
    """(key in the cache, path of the file) of the picture and of its labels."""
    image, label = (os.path.abspath(path) for path in (example.image_path, example.label_path))
    if isinstance(example, RecordExample):
        image, label = f"{image} {example.offset} image", f"{label} {example.offset} labels"
    return (image, example.image_path), (label, example.label_path)


def _hash(example):
    """(size, digest) of the picture and of its labels."""
    if isinstance(example, RecordExample):
        return [(len(contents), _digest(contents)) for contents in example.encoded()]
    return [(os.path.getsize(path), file_digest(path)) for path in (example.image_path, example.label_path)]


def _marks(example, root, found):
    marks = []
    for path, (size, digest) in zip((example.image_path, example.label_path), found, strict=True):
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        place = f" at byte {example.offset}" if isinstance(example, RecordExample) else ""
        marks.append(FileMark(f"{shown.as_posix()}{place}", size, digest))
    return tuple(marks)


def _digest(contents):
    return hashlib.blake2b(contents, digest_size=16).hexdigest()


def _rule_in_words(table, info):
    """ "values 1..150 are classes 0..149, 0 is ignored": runs of a value table."""
    runs = []
    for value in np.flatnonzero(table != OUT_OF_RANGE).tolist():
        train_id = int(table[value])
        ignored = train_id == info.ignore_label
        last = runs[-1] if runs else None
        if last and last[1] == value - 1 and last[4] == ignored and (ignored or last[3] == train_id - 1):
            last[1], last[3] = value, train_id
        else:
            runs.append([value, value, train_id, train_id, ignored])
    return ", ".join(
        f"{_range(first, last)} ignored" if ignored else f"{_range(first, last)} as class {_range(low, high)}"
        for first, last, low, high, ignored in runs
    )


def _range(first, last):
    return f"{first}" if first == last else f"{first}..{last}"


def _counted(names, count, what, happened, path_of):
    if not names:
        return []
    return [f"{len(names)} of {count} {what} {happened} (first: {path_of(names[0])})"]
