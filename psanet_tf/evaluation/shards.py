"""Evaluations of parts of a split, by machines that know nothing of each other, put together."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from psanet_tf.data.findings import counted
from psanet_tf.evaluation.results import (
    FINGERPRINT_FILE,
    RECORDS_FILE,
    SCORES_FILE,
    SETTINGS_FILE,
    EvaluationFolder,
)
from psanet_tf.files import atomic_file
from psanet_tf.inference.shards import Shard

FOLDER = "shards"
FAILURES_FILE = "failures.json"


def shard_folder(out: str | os.PathLike, shard: Shard) -> EvaluationFolder:
    """Where the results of a shard go: a folder of its own, below that of the evaluation."""
    return EvaluationFolder(Path(out) / FOLDER / f"{shard.index}-of-{shard.count}")


def write_failures(folder: EvaluationFolder, failures: Mapping[str, str]) -> None:
    """Notes the images of a shard that could not be read, {name: message}: it is finished without them."""
    with atomic_file(folder.path / FAILURES_FILE) as temporary:
        temporary.write_text(json.dumps(dict(failures), indent=2), encoding="utf-8")


def merge_shards(folder: EvaluationFolder, names: Iterable[str]) -> None:
    """Brings what the shards below an evaluation's folder have done into it, as if one machine had done all.

    Args:
        folder: `EvaluationFolder`; the shards are in the folder `shards` below.
        names: of all examples that the evaluation is of.

    Raises:
        FileNotFoundError: there are no shards.
        ValueError: they are of different weights, settings or data; or images are missing.
    """
    shards = [EvaluationFolder(path.parent) for path in sorted((folder.path / FOLDER).glob(f"*/{SETTINGS_FILE}"))]
    if not shards:
        raise FileNotFoundError(
            f"{folder.path / FOLDER} holds no shards: run psanet evaluate with --shard 1/N to N/N first, or copy "
            "theirs there"
        )
    for other in shards[1:]:
        if different := _different(shards[0].settings, other.settings):
            raise ValueError(
                f"{shards[0].path} and {other.path} are shards of different evaluations ({', '.join(different)} differ)"
            )
    records, excused = {}, set()
    for shard in shards:
        found = shard.records()
        records |= {name: (shard, record) for name, record in found.items()}
        excused |= set(_failures(shard))
    missing = [name for name in names if name not in records and name not in excused]
    if missing:
        raise ValueError(_whose(missing, shards))
    for name in (SCORES_FILE, FINGERPRINT_FILE):
        (folder.path / name).unlink(missing_ok=True)  # of what was here before
    for name, (shard, _) in records.items():
        for file in (EvaluationFolder.label_file, EvaluationFolder.color_file, EvaluationFolder.submission_file):
            _bring(file(shard, name), file(folder, name))
    lines = "\n".join(record.to_json() for _, record in records.values())
    # The records first: settings without them would be an evaluation that has done nothing yet.
    for name, text in ((RECORDS_FILE, lines), (SETTINGS_FILE, json.dumps(shards[0].settings, indent=2))):
        with atomic_file(folder.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _different(one, other):
    """What shards must have in common; where data and weights lie is each machine's own."""

    def compared(settings):
        data = {key: value for key, value in settings["data"].items() if key != "root"}
        return {**settings, "data": data, "weights": settings["weights"]["identity"]}

    one, other = compared(one), compared(other)
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def _failures(shard):
    file = shard.path / FAILURES_FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _whose(missing, shards):
    """Says which shards have to be given again."""
    count = max(int(shard.path.name.partition("-of-")[2]) for shard in shards)
    left = {}
    for name in missing:
        index = next(index for index in range(1, count + 1) if Shard(index, count).holds(name))
        left[index] = left.get(index, 0) + 1
    which = "; ".join(f"--shard {index}/{count}: {counted(left[index], 'image')}" for index in sorted(left))
    return f"{counted(len(missing), 'image')} not done yet, e.g. {missing[0]}: give these shards again ({which})"


def _bring(source, target):
    if not source.is_file():
        target.unlink(missing_ok=True)  # of an earlier merge, of other weights maybe
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as temporary:
        shutil.copyfile(source, temporary)
