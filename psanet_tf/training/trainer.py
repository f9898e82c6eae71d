"""`train`: from a configuration to a trained network in a run folder."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from psanet_tf.config import Config
from psanet_tf.data.catalog import info_of
from psanet_tf.data.layouts import listing_warnings
from psanet_tf.data.scale import config_scale_warnings
from psanet_tf.data.scene_files import SCENES, write_scenes
from psanet_tf.data.statistics import with_statistics
from psanet_tf.keras_api import keras
from psanet_tf.training.agreement import Agreement, data_in_words, settings_in_words
from psanet_tf.training.class_weights import with_class_weights
from psanet_tf.training.continuation import check_data, describe_continuation, device_facts, find_continuation
from psanet_tf.training.early_stopping import describe_stop, is_finished
from psanet_tf.training.fitting import Beginning, fit_run
from psanet_tf.training.interruption import StopSignals
from psanet_tf.training.job import build_job
from psanet_tf.training.memory import bytes_of
from psanet_tf.training.multi_worker import build_multi_worker_strategy, has_workers, runs_as_chief
from psanet_tf.training.recipe import build_schedule
from psanet_tf.training.recovery import recover_checkpoints, recover_state
from psanet_tf.training.run_folder import TrainingFolder, environment
from psanet_tf.training.run_log import RunLog
from psanet_tf.training.schedule import Schedule
from psanet_tf.training.state import Position, save_state
from psanet_tf.training.strategy import build_strategy, devices_of
from psanet_tf.weights.initial_weights import load_configured_weights


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a finished run left.

    Attributes:
        run: TrainingFolder.
        position: Position at its end; best validation mIoU and its epoch.
    """

    run: TrainingFolder
    position: Position


def train(
    config: Config,
    run_dir: str | os.PathLike,
    strategy: tf.distribute.Strategy | None = None,
    extend: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainingResult:
    """Trains a PSANet with `model.fit`, or goes on with the run that is in the folder.

    A run that was interrupted, at whatever moment, continues from its last saved state, with the images and the
    augmentation that would have come; on the same devices the final weights are bit-equal.

    Args:
        config: Config.
        run_dir: the run folder; made if it is not there.
        strategy: `tf.distribute` strategy; default: all workers where TF_CONFIG names several, else all GPUs, or
            `train.cpu_replicas` CPU devices. Workers share the run folder; the first one writes it.
        extend: whether a run that is in the folder may be made longer, to `train.epochs`.
        callbacks: further Keras callbacks, such as those of Weights & Biases or MLflow. They are called after the run's
            own, on the worker they are given to, in one training from `on_train_begin` to `on_train_end`; what they
            keep to themselves is not saved with the run. One that sets `model.stop_training` ends training after that
            step, with the state saved; the same call goes on from there.

    Returns:
        TrainingResult.

    Raises:
        ValueError: data, configuration or folder can't be used, or are not those of the run that is in the folder; the
            message names what and why.
        OSError: files are missing, or the folder can't be written.
        NoSpaceError: there is too little space, before or while training; after room was made the run goes on.
        FloatingPointError: the loss became infinite or NaN.
        ConnectionError: another worker is gone.
        RuntimeError: this Keras can't train on several machines.
        TrainingInterrupted: SIGINT or SIGTERM came, on whichever worker; what was done is saved.
    """
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(f"callbacks must be keras.callbacks.Callback objects, got {callback!r}")
    if strategy is None:
        # First of all: TensorFlow connects the workers before its first operation only.
        strategy = build_multi_worker_strategy() if has_workers() else build_strategy(config.train)
    run, is_chief = TrainingFolder(run_dir), runs_as_chief(strategy)
    agreement, signals = Agreement(strategy), StopSignals()
    with signals.caught(), _lost_workers(strategy), run.locked() if is_chief else contextlib.nullcontext():
        config = _with_statistics(config, run)
        agreement.compare(settings_in_words(config), "workers must have the same configuration")
        continuation = find_continuation(run, config, extend)
        if is_chief:
            run.remove_unfinished()
        prepare_data(config, is_chief)
        # The others have no scenes, and must not see a run, before the first one has looked and written.
        agreement.wait()
        agreement.compare(data_in_words(config.data), "workers must have the same data")
        fingerprints = check_data(run, config, continuation is not None) if is_chief else {}
        weighted = _with_class_weights(config, run, is_chief, continuation is None, agreement)
        job = build_job(weighted, strategy, continuation and continuation.schedule.steps_per_epoch)
        position, metric_values, is_new = _initial_position(config, run, job)
        agreement.compare(
            {"the saved state": f"of epoch {position.epoch}, step {position.step}"},
            "run folder: all workers need the same one, on a file system that they share",
        )
        if is_chief:
            position = _open_run(config, run, strategy, job, position, continuation, fingerprints)
            if is_new:
                # Before any checkpoint: a folder that holds one always holds a state too.
                save_state(run.state_file, job.model, position)
        if not is_finished(config.train, position):
            with signals.deferred():
                beginning = Beginning(position, metric_values)
                position = fit_run(config, run, strategy, job, beginning, agreement, signals, callbacks)
        elif is_chief:
            print(_describe_end(config.train, run, position), file=sys.stderr)
        return TrainingResult(run, position)


def _describe_end(section, run, position):
    if position.epoch < section.epochs:
        return f"the run in {run.path} is finished: {describe_stop(section.early_stopping, position)}"
    return (
        f"the run in {run.path} is finished, {position.epoch} of {section.epochs} epochs; "
        "--extend --epochs N makes it longer"
    )


def _with_statistics(config, run):
    """The configuration with mean and deviation of the images, of the run where it goes on."""
    before = run.read_config()
    config, line = with_statistics(config, before and before.data)
    if line:
        print(line, file=sys.stderr)
    return config


def _with_class_weights(config, run, is_chief, is_new, agreement):
    """The configuration with class weights as numbers, which the first worker finds and the others read."""
    if not isinstance(config.train.class_weights, str):
        return config
    file = run.class_weights_file
    if is_chief:
        weighted = with_class_weights(config, file, compute=is_new or not file.is_file())
    agreement.wait()
    return weighted if is_chief else with_class_weights(config, file, compute=False)


def _open_run(config, run, strategy, job, position, continuation, fingerprints):
    """Says how the run goes on, puts its folder in order and notes this start; returns the position after that."""
    start = environment(devices_of(strategy), **device_facts(strategy))
    schedule, lines = Schedule(job.steps, config.train.epochs), []
    if continuation is not None:
        schedule = continuation.schedule
        before = run.starts()
        lines = describe_continuation(continuation, before[-1] if before else None, start, config)
        if continuation.extends:
            schedule = schedule.extended(config.train.epochs, position)
            lines += _describe_extension(config.train, continuation.schedule, schedule, position)
        start["continuation"] = lines
    finished = is_finished(config.train, position)
    if not finished:
        run.check_space(*_checkpoint_sizes(job), config.train.keep_last)
        if continuation is not None:
            step = f" and step {position.step} of {job.steps}" if position.step else ""
            place = f"after epoch {position.epoch}{step}" if position.epoch or step else "from the beginning"
            RunLog(run.log_file).say(f"going on {place}; {'; '.join(lines)}")
    position = recover_checkpoints(run, job.model, position, finished)
    run.write_facts(config, job.info, start, schedule, fingerprints)
    return position


def _describe_extension(section, before, after, position):
    update = (position.epoch * before.steps_per_epoch + position.step) // section.accumulation_steps
    rates = [
        float(build_schedule(section, schedule.updates(section.accumulation_steps))(update))
        for schedule in (before, after)
    ]
    return [
        f"the run is extended from {before.epochs} to {after.epochs} epochs: its learning rate goes on at "
        f"{rates[1]:.3g} instead of {rates[0]:.3g} and falls to 0 at the new end; it will not equal a run that was "
        f"planned for {after.epochs} epochs"
    ]


def prepare_data(config: Config, is_chief: bool = True) -> None:
    """Writes the scenes if they are configured and not there; any other dataset must be there. Warns about
    files that are passed over, and about scales.
    """
    data = config.data
    if data.dataset in SCENES and not Path(data.root).exists() and is_chief:
        print(f"there are no scenes in {data.root} yet", file=sys.stderr)
        write_scenes(data.root, kind=data.dataset)
    if is_chief:
        for warning in listing_warnings(data) + config_scale_warnings(config, info_of(data)):
            print(f"warning: {warning}", file=sys.stderr)


def _initial_position(config, run, job):
    """(Position, metric values, whether the run is new); weights are the saved state's, train.init's or random."""
    found = recover_state(run, job.model)
    if found is not None:
        return *found, False
    for line in load_configured_weights(job.model, config):
        print(line, file=sys.stderr)
    return Position(), [], True


@contextlib.contextmanager
def _lost_workers(strategy):
    """Says what it means that a collective operation was given up."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError) as error:
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        raise ConnectionError(
            "another worker is gone; give the same command on all workers again, and the run goes on from its last "
            f"saved state ({error.message.splitlines()[0][:200]})"
        ) from None


def _checkpoint_sizes(job):
    """Bytes of a checkpoint and of a state, with what the files have besides the numbers."""
    weights, slots = bytes_of(job.model.variables), bytes_of(job.model.optimizer.variables)
    overhead = 2000 * len(job.model.variables) + 100_000
    return weights + overhead, weights + slots + overhead
