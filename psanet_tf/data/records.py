"""Sharded TFRecord files with the feature keys that TF Model Garden's segmentation reader takes.

Images are stored as their files' bytes, or as PNG where other readers would make other pixels of it (turned by
orientation, transparent, CMYK, ...), images that are no photographs as upright PNG or as ``.npy``; labels as grey PNG
of train ids. Examples are found by their offsets, so that they can be read in any order: batches are the same as from
the files.
"""

import dataclasses
import os
import re
import struct
from pathlib import Path

from psanet_tf.data.layouts import Example

IMAGE_KEY = "image/encoded"
LABEL_KEY = "image/segmentation/class/encoded"
NAME_KEY = "image/source_id"

_HEADER, _FOOTER = 12, 4  # length and its checksum; checksum of the data


@dataclasses.dataclass(frozen=True)
class RecordExample(Example):
    """An example in a shard; `image_path` and `label_path` are the shard.

    Attributes:
        offset: byte at which its record starts.
    """

    offset: int

    @property
    def where(self) -> str:
        return f"{self.image_path} (record at byte {self.offset}, {self.name})"

    def encoded(self) -> tuple[bytes, bytes]:
        """Bytes of the image and of the labels."""
        import tensorflow as tf

        with open(self.image_path, "rb") as file:
            file.seek(self.offset)
            (length,) = struct.unpack("<Q", file.read(8))
            file.seek(self.offset + _HEADER)
            features = tf.train.Example.FromString(file.read(length)).features.feature
        return features[IMAGE_KEY].bytes_list.value[0], features[LABEL_KEY].bytes_list.value[0]


def shard_path(folder: str | os.PathLike, split: str, index: int, count: int) -> Path:
    return Path(folder) / f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def shards_of(folder: str | os.PathLike, split: str) -> list[Path]:
    """Paths of all files in a folder that are named as shards of a split, sorted."""
    return sorted(path for path in Path(folder).glob(f"{split}-*.tfrecord") if _numbers(path, split))


def list_records(folder: str | os.PathLike, split: str) -> list[RecordExample]:
    """The examples in the shards of a split, in the order they were written.

    Raises:
        FileNotFoundError: there are no shards of this split, or one is missing.
        ValueError: a shard is cut short, or shards of two conversions lie side by side.
    """
    paths = shards_of(folder, split)
    if not paths:
        raise FileNotFoundError(f"{folder} holds no TFRecords of split {split!r} ({split}-00000-of-NNNNN.tfrecord)")
    counts = sorted({_numbers(path, split)[1] for path in paths})
    if len(counts) > 1:
        raise ValueError(f"{folder}: split {split!r} has shards of several conversions, of {counts} shards; keep one")
    for index in range(counts[0]):
        if not shard_path(folder, split, index, counts[0]).is_file():
            raise FileNotFoundError(
                f"there is no {shard_path(folder, split, index, counts[0])}: repeat psanet data to-tfrecord, it "
                "continues where it was interrupted"
            )
    examples = []
    for path in paths:
        examples += [
            RecordExample(f"{path.stem}-{number:05d}", path, path, offset)
            for number, offset in enumerate(_offsets(path))
        ]
    if not examples:
        raise ValueError(f"{folder}: split {split!r} holds no images")
    return examples


def _numbers(path, split):
    found = re.fullmatch(re.escape(split) + r"-(\d{5})-of-(\d{5})", path.stem)
    return found and (int(found.group(1)), int(found.group(2)))


def _offsets(path):
    size, offset = path.stat().st_size, 0
    offsets = []
    with open(path, "rb") as file:
        while offset < size:
            file.seek(offset)
            header = file.read(8)
            length = struct.unpack("<Q", header)[0] if len(header) == 8 else size
            if offset + _HEADER + length + _FOOTER > size:
                raise ValueError(f"{path} is cut short or no TFRecord file (at byte {offset} of {size})")
            offsets.append(offset)
            offset += _HEADER + length + _FOOTER
    return offsets
