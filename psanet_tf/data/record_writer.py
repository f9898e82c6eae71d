"""Writes a split as TFRecord shards: in parallel, each shard whole or not at all, going on where it was interrupted."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from psanet_tf.data.catalog import info_of
from psanet_tf.data.readers import list_examples, read_example
from psanet_tf.data.records import IMAGE_KEY, LABEL_KEY, NAME_KEY, shard_path
from psanet_tf.files import atomic_file
from psanet_tf.progress import track


def write_records(data, split, folder, examples_per_shard=500, workers=None):
    """Writes one split of a dataset.

    Args:
        data: a `DataSection` with ``format: files``.
        split: the dataset's own name of the split.
        folder: where ``<split>-00000-of-NNNNN.tfrecord`` go. Shards that are there are kept.
        examples_per_shard: pictures in a file.
        workers: shards written at a time; default: processor cores.

    Returns:
        (paths of all shards, how many of them were there before).

    Raises:
        ValueError: a picture or its labels cannot be read (named), or `data` is TFRecords already.
        FileNotFoundError: no such data.
    """
    import os

    if data.format != "files":
        raise ValueError(f"data.format: {data.root} holds TFRecords already, only files can be converted")
    if examples_per_shard < 1:
        raise ValueError(f"examples_per_shard: must be at least 1, got {examples_per_shard}")
    examples, info = list_examples(data, split), info_of(data)
    parts = [examples[first : first + examples_per_shard] for first in range(0, len(examples), examples_per_shard)]
    paths = [shard_path(folder, split, index, len(parts)) for index in range(len(parts))]
    todo = [(path, part) for path, part in zip(paths, parts, strict=True) if not path.is_file()]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        jobs = [pool.submit(_write_shard, path, part, info) for path, part in todo]
        try:
            for job in track(jobs, f"writing {split}"):
                job.result()
        except BaseException:
            for job in jobs:
                job.cancel()
            raise
    return paths, len(paths) - len(todo)


def _write_shard(path, examples, info):
    import tensorflow as tf

    with atomic_file(path) as temporary:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for example in examples:
                writer.write(_serialized(example, info))


def _serialized(example, info):
    import tensorflow as tf

    image, label = read_example(example, info)
    encoded = io.BytesIO()
    Image.fromarray(label).save(encoded, "PNG")
    picture = example.image_path.read_bytes()
    values = {
        IMAGE_KEY: picture,
        LABEL_KEY: encoded.getvalue(),
        NAME_KEY: example.name.encode(),
        "image/filename": example.image_path.name.encode(),
        "image/format": (Image.open(io.BytesIO(picture)).format or "").lower().encode(),
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
