"""Writes a split as TFRecord shards: in parallel, each shard whole or not at all, going on where it was interrupted."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from psanet_tf.config import DataSection
from psanet_tf.cores import usable_cores
from psanet_tf.data.catalog import info_of
from psanet_tf.data.fingerprint import data_fingerprint, describe_difference
from psanet_tf.data.headers import is_jpeg, is_png
from psanet_tf.data.pixels import is_plain
from psanet_tf.data.plain_copies import encoded_plainly, png_bytes
from psanet_tf.data.readers import list_examples, read_example
from psanet_tf.data.record_fingerprints import (
    fingerprint_path,
    read_shard_fingerprints,
    write_shard_fingerprints,
)
from psanet_tf.data.records import IMAGE_KEY, LABEL_KEY, NAME_KEY, shard_path, shards_of
from psanet_tf.files import atomic_file
from psanet_tf.progress import track


def write_records(
    data: DataSection, split: str, folder: str | os.PathLike, examples_per_shard: int = 500, workers: int | None = None
) -> tuple[list[Path], int, list[str]]:
    """Writes one split of a dataset.

    Args:
        data: a `DataSection` with ``format: files``.
        split: the dataset's own name of the split.
        folder: where ``<split>-00000-of-NNNNN.tfrecord`` go, and ``<split>.fingerprint.json``, which says of what data
            each is. Shards of these data that are there are kept, others are written again. The files that `data` names
            its classes and colours by are copied there, so that the same keys read the records.
        examples_per_shard: images in a file.
        workers: shards written at a time; default: processor cores.

    Returns:
        (paths of all shards, how many of them were there before, list of texts: what changed since they were written).

    Raises:
        ValueError: an image or its labels cannot be read (named), `data` is TFRecords already, or the folder holds
            shards of this split that are of other images or don't say of which.
        FileNotFoundError: no such data.
    """
    if data.format != "files":
        raise ValueError(f"data.format: {data.root} holds TFRecords already, only files can be converted")
    if examples_per_shard < 1:
        raise ValueError(f"examples_per_shard: must be at least 1, got {examples_per_shard}")
    examples, info = list_examples(data, split), info_of(data)
    parts = [examples[first : first + examples_per_shard] for first in range(0, len(examples), examples_per_shard)]
    paths = [shard_path(folder, split, index, len(parts)) for index in range(len(parts))]
    # Kept beside the shards: a conversion that goes on reads nothing twice.
    whole = data_fingerprint(data, split, Path(folder) / "hashes.json", examples)
    wanted = {
        path.name: whole.subset(example.name for example in part) for path, part in zip(paths, parts, strict=True)
    }
    written = read_shard_fingerprints(folder, split)
    changes = _what_changed(folder, split, written, whole)
    todo = [
        (path, part)
        for path, part in zip(paths, parts, strict=True)
        if not path.is_file() or not _is_of(written.get(path.name), wanted[path.name])
    ]
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        jobs = {pool.submit(_write_shard, path, part, info): path for path, part in todo}
        try:
            for job in track(as_completed(jobs), f"writing {split}", len(jobs)):
                job.result()
                name = jobs[job].name
                written[name] = wanted[name]
                write_shard_fingerprints(folder, split, written)
        except BaseException:
            for job in jobs:
                job.cancel()
            raise
    for path in shards_of(folder, split):
        # Of a conversion into another number of shards; only now is there something in their place.
        if path.name not in wanted:
            path.unlink()
    write_shard_fingerprints(folder, split, wanted)
    _copy_class_files(data, Path(folder))
    return paths, len(paths) - len(todo), changes


def _copy_class_files(data, folder):
    for name in (data.class_names, data.class_colors, data.label_palette):
        # An absolute path is found from anywhere; one that leads out of the root has no place below the folder.
        if name is None or Path(name).is_absolute() or ".." in Path(name).parts:
            continue
        contents, target = (Path(data.root) / name).read_bytes(), folder / name
        if not target.is_file() or target.read_bytes() != contents:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(target) as temporary:
                temporary.write_bytes(contents)


def _what_changed(folder, split, written, whole):
    """Texts that say in what the data differ from those that the shards in the folder were made of."""
    there = shards_of(folder, split)
    unknown = [path.name for path in there if path.name not in written]
    if unknown and not written:
        raise ValueError(
            f"{folder} holds {unknown[0]}, but no {fingerprint_path(folder, split).name} that says of which data it "
            "is: remove the shards of this split, or choose another folder"
        )
    before = [written[path.name] for path in there if path.name in written]
    if not before:
        return []
    images = {name: marks for part in before for name, marks in part.images.items()}
    if not images.keys() & whole.images.keys():
        raise ValueError(
            f"{folder} holds TFRecords of split {split!r} of other images (e.g. {next(iter(images))!r}): choose "
            "another folder, or remove them"
        )
    if len(before) < len(there) or not _is_complete(there):
        # Interrupted: the images of shards that are not there yet are not new.
        old = dataclasses.replace(before[0], images=images)
        return describe_difference(old, whole.subset(name for name in whole.images if name in images))
    return describe_difference(dataclasses.replace(before[0], images=images), whole)


def _is_complete(paths):
    return len(paths) == int(paths[0].stem.rpartition("-of-")[2])


def _is_of(before, now):
    """Whether a shard is of these images, in this order."""
    return before is not None and list(before.images) == list(now.images) and not describe_difference(before, now)


def _write_shard(path, examples, info):
    import tensorflow as tf

    with atomic_file(path) as temporary:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for example in examples:
                writer.write(_serialized(example, info))


def _serialized(example, info):
    import tensorflow as tf

    image, label = read_example(example, info)
    contents = example.image_path.read_bytes()
    if not is_plain(contents, info.images):
        # Other readers of the records would make other pixels of it.
        contents = encoded_plainly(image, info.images)
    values = {
        IMAGE_KEY: contents,
        LABEL_KEY: png_bytes(label),
        NAME_KEY: example.name.encode(),
        "image/filename": example.image_path.name.encode(),
        "image/format": b"jpeg" if is_jpeg(contents) else b"png" if is_png(contents) else b"npy",
        "image/segmentation/class/format": b"png",
        "image/height": image.shape[0],
        "image/width": image.shape[1],
        "image/channels": image.shape[2],
    }
    features = {key: _feature(value) for key, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def _feature(value):
    import tensorflow as tf

    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[np.int64(value)]))
