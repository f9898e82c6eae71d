"""Whether a run may go on with a configuration, devices and data, and how equal it then is to one never interrupted."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from psanet_tf.config import Config, flat_config, load_config
from psanet_tf.data.fingerprint import Fingerprint, data_fingerprint, describe_difference
from psanet_tf.data.record_fingerprints import read_shard_fingerprints
from psanet_tf.training.key_groups import FIXED, LENGTH, group_of
from psanet_tf.training.run_folder import TrainingFolder
from psanet_tf.training.schedule import Schedule
from psanet_tf.training.strategy import devices_of

_ADVICE = "continue it with its own values, or start a new run in another folder (--init {} takes over its weights)"


@dataclasses.dataclass(frozen=True)
class Continuation:
    """What a run goes on with.

    Attributes:
        schedule: as the run folder has it.
        epochs: of the run from now on; more than the schedule's where it is extended.
        changes: lines of text, one per changed key.
    """

    schedule: Schedule
    epochs: int
    changes: tuple[str, ...]

    @property
    def extends(self) -> bool:
        return self.epochs > self.schedule.epochs


def find_continuation(run: TrainingFolder, config: Config, extend: bool = False) -> Continuation | None:
    """Compares a configuration with the run that is in the folder.

    Args:
        run: TrainingFolder.
        config: Config.
        extend: whether `train.epochs` may be more than the run has.

    Returns:
        Continuation, or None where the folder holds no run yet.

    Raises:
        ValueError: the run has other values of keys that matter, or other epochs; or the folder holds something else;
            or, to be extended, nothing.
    """
    if not run.config_file.exists():
        others = run.others()
        if others:
            raise ValueError(f"run folder: {run.path} holds {others[0]} but no run; choose a new or an empty folder")
        if extend:
            raise ValueError(f"run folder: {run.path} holds no run that could be extended")
        return None
    if not run.schedule_file.is_file():
        raise ValueError(
            f"run folder: {run.path} has no {run.schedule_file.name}, which says how many steps the run has; it was "
            f"made by an older version. Start a new run from its weights: --init {run.last_file}"
        )
    schedule = Schedule.load(run.schedule_file)
    before, now = flat_config(load_config(run.config_file)), flat_config(config)
    # As text: in mappings of patterns to factors and of losses to weights the order counts.
    changed = {
        key: f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in now | before  # an optional section that is gone has keys in `before` alone
        if json.dumps(before.get(key)) != json.dumps(now.get(key))
    }
    fixed = [text for key, text in changed.items() if group_of(key) is FIXED]
    if fixed:
        raise ValueError(
            f"run folder: {run.path} holds a run of another configuration ({'; '.join(fixed)}); "
            + _ADVICE.format(run.last_file)
        )
    epochs = config.train.epochs
    if epochs != schedule.epochs and not (extend and epochs > schedule.epochs):
        advice = (
            f"give --extend --epochs {epochs} to make it longer, which changes its learning rates from here on"
            if epochs > schedule.epochs
            else f"give --epochs {schedule.epochs}; a run can be made longer, not shorter"
        )
        raise ValueError(
            f"run folder: {run.path} holds a run of {schedule.epochs} epochs, {LENGTH} is {epochs}; {advice}"
        )
    return Continuation(schedule, epochs, tuple(text for key, text in changed.items() if group_of(key) != (LENGTH,)))


def check_data(run: TrainingFolder, config: Config, continues: bool) -> dict[Path, Fingerprint]:
    """Compares the data with those that the run started with, and notes them where it has not started yet.

    Args:
        run: TrainingFolder.
        config: Config.
        continues: whether the folder holds a run already.

    Returns:
        {file of the run folder: Fingerprint} to be saved when training begins.

    Raises:
        ValueError: the data have changed; the message says what and what to do.
        OSError, ValueError: as `data_fingerprint`.
    """
    data = config.data
    found, changes = {}, []
    for file, split in ((run.training_data_file, data.train_split), (run.validation_data_file, data.val_split)):
        found[file] = data_fingerprint(data, split, run.hashes_file)
        if continues:
            changes += _difference(Fingerprint.load(file), found[file], load_config(run.config_file).data, data)
    if changes:
        raise ValueError(
            f"the data in {data.root} are not those that the run in {run.path} started with: {'; '.join(changes)}. Put "
            "them back, then the same command goes on; for the data as they are now, start a new run in another "
            f"folder (--init {run.last_file} takes over the weights)"
        )
    return found


def describe_continuation(
    continuation: Continuation, before: Mapping[str, Any] | None, now: Mapping[str, Any], config: Config
) -> list[str]:
    """What has changed since the run was last started, and what that means for its weights.

    Args:
        continuation: Continuation.
        before: the entry of environment.json for the last start of the run, or None if there is none.
        now: the one for this start.
        config: Config.

    Returns:
        Lines of text.

    Raises:
        ValueError: another number of devices where each has batch statistics of its own.
    """
    lines = list(continuation.changes)
    if before is None:
        return [*lines, "on what devices and with what versions the run was started before is not known"]
    replicas = before["replicas"] != now["replicas"]
    if replicas and not config.train.sync_batch_norm and not config.train.freeze_batch_norm:
        raise ValueError(
            f"train.sync_batch_norm: false: every device has batch statistics of its own; the run had "
            f"{before['replicas']} devices, here are {now['replicas']}; go on with as many as before"
        )
    reasons = []
    if replicas:
        reasons.append(f"{now['replicas']} devices where there were {before['replicas']}")
    if before["device_kind"] != now["device_kind"]:
        reasons.append(f"{now['device_kind']} where there was {before['device_kind']}")
    reasons += [
        f"{name} {now['packages'][name]} where there was {before['packages'].get(name)}"
        for name in now["packages"]
        if now["packages"][name] != before["packages"].get(name)
    ]
    if now["device_kind"] != "CPU" and not config.train.deterministic:
        reasons.append("train.deterministic is false, so that some kernels of GPUs sum in no fixed order")
    if continuation.extends:
        # There is no run without an interruption to compare with.
        return lines
    if not reasons:
        lines.append("the weights will be bit-equal to those of a run that was never interrupted")
        return lines
    what = "the weights will be those of a run that was never interrupted but for the order of floating-point sums"
    if replicas and config.model.dropout:
        what += " and the masks of dropout, which every device draws for itself"
    lines.append(f"{what} ({'; '.join(reasons)})")
    return lines


def device_facts(strategy: tf.distribute.Strategy) -> dict[str, int | str]:
    """{"replicas": over all workers, "device_kind": "CPU" or the GPU's name} of a `tf.distribute` strategy."""
    gpus = tf.config.list_physical_devices("GPU")
    uses_gpu = any("GPU" in device for device in devices_of(strategy))
    kind = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus and uses_gpu else "CPU"
    return {"replicas": strategy.num_replicas_in_sync, "device_kind": kind}


def _difference(old, new, old_data, new_data):
    if old_data.format == new_data.format:
        lines = describe_difference(old, new)
        if not lines and list(old.images) != list(new.images):
            return [f"the images of split {new.split!r} are in another order"]
        return lines
    lines = _difference_of_images(old, new)
    files, records, folder = (old, new, new_data) if new_data.format == "tfrecord" else (new, old, old_data)
    noted = read_shard_fingerprints(folder.root, records.split)
    if lines or not noted:
        return lines
    sources = {name: marks for shard in sorted(noted) for name, marks in noted[shard].images.items()}
    source = dataclasses.replace(noted[min(noted)], images=sources)
    return describe_difference(*((files, source) if files is old else (source, files)))


def _difference_of_images(old, new):
    """As `describe_difference`, between files and TFRecords of them, which have other names and labels written anew.

    Images lie in TFRecords as their files' bytes, in the order of the files. What the labels were is noted beside
    the shards.
    """
    if old.class_names != new.class_names:
        return describe_difference(old, dataclasses.replace(new, label_rule=old.label_rule, images=old.images))
    one, two = ([marks[0] for marks in fingerprint.images.values()] for fingerprint in (old, new))
    if len(one) != len(two):
        return [f"split {new.split!r} had {len(one)} images, has {len(two)}"]
    other = [b.path for a, b in zip(one, two, strict=True) if not a.same_contents(b)]
    if other:
        return [f"{len(other)} of {len(two)} images of split {new.split!r} are others (first: {other[0]})"]
    return []
