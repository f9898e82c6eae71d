"""What a split's data are, to the byte: so that nothing made from other data is taken for theirs.

Every image and label file is hashed whole. A hash is kept, in a cache file, for as long as the file's size and its
times of change (mtime and ctime, in nanoseconds) stay, so later starts only ask the file system for those. What that
would miss is a file that is changed with the clock set back, or on a file system that doesn't keep these times.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from psanet_tf.config import DataSection
from psanet_tf.cores import usable_cores
from psanet_tf.data.catalog import IGNORE_LABEL, OUT_OF_RANGE, info_of, label_value_table
from psanet_tf.data.differences import (
    FileMark,
    Fingerprint,
    changed_images,
    describe_changed,
    describe_classes,
    describe_difference,
    digest_of,
)
from psanet_tf.data.layouts import Example
from psanet_tf.data.readers import has_train_ids, list_examples
from psanet_tf.data.records import RecordExample
from psanet_tf.files import atomic_file, hash_file
from psanet_tf.progress import track

__all__ = [
    "FileMark",
    "Fingerprint",
    "changed_images",
    "data_fingerprint",
    "describe_changed",
    "describe_classes",
    "describe_difference",
]

# A file may be changed again without a new time within the clock's tick, so hashes of files this young are not kept.
_SETTLED_NS = 2_000_000_000
_PROGRESS_BYTES = 1 << 28


def data_fingerprint(
    data: DataSection, split: str, cache: str | os.PathLike | None = None, examples: Sequence[Example] | None = None
) -> Fingerprint:
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
    train_ids = records or has_train_ids(examples[0].label_path)
    if not train_ids and info.label_rule is not None and info.label_rule.colors:
        rule = _colors_in_words(info.label_rule)
    else:
        rule = _rule_in_words(label_value_table(info, train_ids), info)
    return Fingerprint(split, info.class_names, rule, marks)


def file_digest(path: str | os.PathLike) -> str:
    """BLAKE2b of a file's contents, 128 bits, hexadecimal; about 1 GB per second and thread.

    Raises:
        OSError: it cannot be read.
    """
    return hash_file(path, hashlib.blake2b(digest_size=16)).hexdigest()


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
        with ThreadPoolExecutor(usable_cores()) as pool:
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
    """(key in the cache, path of the file) of the image and of its labels."""
    image, label = (os.path.abspath(path) for path in (example.image_path, example.label_path))
    if isinstance(example, RecordExample):
        image, label = f"{image} {example.offset} image", f"{label} {example.offset} labels"
    return (image, example.image_path), (label, example.label_path)


def _hash(example):
    """(size, digest) of the image and of its labels."""
    if isinstance(example, RecordExample):
        return [(len(contents), digest_of(contents)) for contents in example.encoded()]
    return [(os.path.getsize(path), file_digest(path)) for path in (example.image_path, example.label_path)]


def _marks(example, root, found):
    marks = []
    for path, (size, digest) in zip((example.image_path, example.label_path), found, strict=True):
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        place = f" at byte {example.offset}" if isinstance(example, RecordExample) else ""
        marks.append(FileMark(f"{shown.as_posix()}{place}", size, digest))
    return tuple(marks)


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


def _colors_in_words(rule):
    """ "colours #000000 ignored, #804080 as class 0" """
    return "colours " + ", ".join(
        f"#{red:02x}{green:02x}{blue:02x} {'ignored' if train_id == IGNORE_LABEL else f'as class {train_id}'}"
        for (red, green, blue), train_id in sorted(rule.colors)
    )


def _range(first, last):
    return f"{first}" if first == last else f"{first}..{last}"
