"""Of which data the shards of a split are: ``<split>.fingerprint.json`` beside them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.differences import Fingerprint, describe_classes
from psanet_tf.files import atomic_file


def fingerprint_path(folder: str | os.PathLike, split: str) -> Path:
    return Path(folder) / f"{split}.fingerprint.json"


def read_shard_fingerprints(folder: str | os.PathLike, split: str) -> dict[str, Fingerprint]:
    """{name of the shard: Fingerprint}; empty where nothing is noted.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    path = fingerprint_path(folder, split)
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {name: Fingerprint.from_dict(item) for name, item in values["shards"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it and the shards, and convert again") from None


def write_shard_fingerprints(folder: str | os.PathLike, split: str, fingerprints: Mapping[str, Fingerprint]) -> None:
    """Writes what `read_shard_fingerprints` reads; an older file stays until the new one is whole."""
    shards = {name: fingerprints[name].to_dict() for name in sorted(fingerprints)}
    with atomic_file(fingerprint_path(folder, split)) as temporary:
        temporary.write_text(json.dumps({"shards": shards}), encoding="utf-8")


def check_shard_classes(folder: str | os.PathLike, split: str, info: DatasetInfo) -> None:
    """Compares the classes that shards were written with, where that is noted, with those that a configuration has.

    The train ids in the shards stand for the former.

    Args:
        folder: of the shards.
        split: name of the split.
        info: DatasetInfo of the configuration.

    Raises:
        ValueError: they differ.
    """
    for fingerprint in list(read_shard_fingerprints(folder, split).values())[:1]:
        different = describe_classes(fingerprint.class_names, info.class_names)
        if different:
            raise ValueError(
                f"the TFRecords of split {split!r} in {folder} were written with other classes: "
                f"{'; '.join(different)}; convert the data again, or give them these classes"
            )
