"""`train`: from a configuration to a trained network in a run folder."""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from psanet_tf.config import Config, TrainSection
from psanet_tf.data.catalog import DatasetInfo, info_of
from psanet_tf.data.layouts import listing_warnings
from psanet_tf.data.pipeline import evaluation_dataset, steps_per_epoch, training_dataset
from psanet_tf.data.readers import list_examples
from psanet_tf.data.scale import config_scale_warnings, with_long_side
from psanet_tf.data.scene_files import SCENES, write_scenes
from psanet_tf.data.statistics import with_statistics
from psanet_tf.data.unreadable import UnreadableExamples, readable_pipeline_errors
from psanet_tf.keras_api import keras
from psanet_tf.layers import freeze_batch_norm
from psanet_tf.metrics import MeanIoU
from psanet_tf.models import build_model
from psanet_tf.training.agreement import Agreement, data_in_words, settings_in_words
from psanet_tf.training.averaging import ValidateAverage
from psanet_tf.training.callbacks import CheckpointCallback, Progress
from psanet_tf.training.continuation import check_data, describe_continuation, device_facts, find_continuation
from psanet_tf.training.freezing import freeze
from psanet_tf.training.interruption import StopSignals
from psanet_tf.training.memory import bytes_of
from psanet_tf.training.multi_worker import build_multi_worker_strategy, has_workers, runs_as_chief
from psanet_tf.training.prebuilding import build_for_fit
from psanet_tf.training.recipe import build_losses, build_optimizer, build_schedule
from psanet_tf.training.recovery import recover_checkpoints, recover_state
from psanet_tf.training.run_folder import TrainingFolder, environment
from psanet_tf.training.schedule import Schedule
from psanet_tf.training.state import Position, save_state
from psanet_tf.training.strategy import build_strategy, devices_of, is_default, uses_xla
from psanet_tf.training.tensorboard import TensorBoard
from psanet_tf.weights.description import Description, describe
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
    config: Config, run_dir: str | os.PathLike, strategy: tf.distribute.Strategy | None = None, extend: bool = False
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
        job = build_job(config, strategy, continuation and continuation.schedule.steps_per_epoch)
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
        if position.epoch < config.train.epochs:
            with signals.deferred():
                position = _fit(config, run, strategy, job, position, metric_values, agreement, signals)
        elif is_chief:
            print(
                f"the run in {run.path} is finished, {position.epoch} of {config.train.epochs} epochs; "
                "--extend --epochs N makes it longer",
                file=sys.stderr,
            )
        return TrainingResult(run, position)


def _with_statistics(config, run):
    """The configuration with mean and deviation of the images, of the run where it goes on."""
    before = run.read_config()
    config, line = with_statistics(config, before and before.data)
    if line:
        print(line, file=sys.stderr)
    return config


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
    if position.epoch < config.train.epochs:
        run.check_space(*_checkpoint_sizes(job), config.train.keep_last)
        if continuation is not None:
            step = f" and step {position.step} of {job.steps}" if position.step else ""
            place = f"after epoch {position.epoch}{step}" if position.epoch or step else "from the beginning"
            print(f"going on {place}; {'; '.join(lines)}", file=sys.stderr)
    position = recover_checkpoints(run, job.model, position, config.train.epochs)
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


@dataclasses.dataclass(frozen=True)
class Job:
    """What one run trains: compiled model, facts about the data, and steps per epoch."""

    model: keras.Model
    info: DatasetInfo
    steps: int


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


def build_job(config: Config, strategy: tf.distribute.Strategy, steps: int | None = None) -> Job:
    """Builds and compiles the model in the strategy's scope, optimizer included.

    Args:
        config: Config.
        strategy: `tf.distribute` strategy.
        steps: per epoch; default: as many whole batches as the data have.

    Returns:
        Job.

    Raises:
        ValueError, OSError: see `train`.
    """
    section = config.train
    replicas = strategy.num_replicas_in_sync
    if section.batch_size % replicas:
        raise ValueError(
            f"train.batch_size: {section.batch_size} images cannot be shared equally by {replicas} replicas; "
            f"{max(1, section.batch_size // replicas) * replicas} can"
        )
    jit_compile = uses_xla(section, strategy)
    info = with_long_side(info_of(config.data), config.data)
    steps = steps or steps_per_epoch(config, section.batch_size)
    list_examples(config.data, config.data.val_split)
    updates = section.epochs * steps // section.accumulation_steps
    if not updates:
        raise ValueError(
            f"train.accumulation_steps: {section.accumulation_steps} steps per update, but the run has "
            f"{section.epochs * steps} steps"
        )
    if section.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(section.tensor_float_32)
    keras.utils.set_random_seed(section.seed)
    with strategy.scope():
        model = build_model(config, info.num_classes, zoom_factor=section.zoom_factor, dtype=section.precision)
        describe(model, Description(info, config.evaluate))
        freeze(model, section.freeze)
        if section.freeze_batch_norm:
            freeze_batch_norm(model)
        if section.aux_weight == 0 and model.has_aux_head:
            freeze(model, ["aux_*"])
        model.rematerialize = section.rematerialize == "blocks"
        optimizer = build_optimizer(section, updates)
        miou = MeanIoU(info.num_classes, info.ignore_label)
        model.compile(
            optimizer,
            **build_losses(section, info, model.has_aux_head),
            metrics={"logits": [miou]} if model.has_aux_head else [miou],
            # DistributedOptimizer has a loss scale of its own, which looks at all replicas.
            auto_scale_loss=False,
            jit_compile=jit_compile,
            # One step per call (steps_per_execution): signals, saving and the check for NaN come between steps, and a
            # step takes far longer than the call, which does not wait for it.
        )
        optimizer.build(model.trainable_variables)
        build_for_fit(model)
    return Job(model, info, steps)


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


def _fit(config, run, strategy, job, position, metric_values, agreement, signals):
    section = config.train
    data = config.data
    unreadable = {data.train_split: UnreadableExamples(), data.val_split: UnreadableExamples()}
    make_validation = functools.partial(
        evaluation_dataset, config, section.batch_size, unreadable=unreadable[data.val_split]
    )
    # Without end, and counted below: Keras looks at a batch of what is left from the last validation before each one.
    validation = distribute_dataset(strategy, section, lambda **worker: make_validation(**worker).repeat())
    validation_steps = -(-len(list_examples(data, data.val_split)) // section.batch_size)
    is_chief = runs_as_chief(strategy)
    checkpoints = CheckpointCallback(run, section, job.steps, position, metric_values, agreement, signals, is_chief)
    callbacks = [checkpoints]
    if section.ema_decay is not None:
        callbacks.append(ValidateAverage())
    progress = Progress(config, job.steps, position, checkpoints, unreadable)
    if is_chief:
        callbacks.append(progress)
        if section.tensorboard:
            callbacks.append(
                TensorBoard(run.tensorboard_folder, checkpoints, job.info, make_validation, section.zoom_factor)
            )
    with readable_pipeline_errors(data), contextlib.closing(progress):
        if position.step == job.steps:
            _finish_epoch(job.model, position.epoch, callbacks, validation, validation_steps)
            position = checkpoints.position
        # An epoch that was interrupted is finished by a `fit` of its own: it has fewer steps.
        parts = [(position.epoch, position.epoch + 1, position.step)] if position.step else []
        first_whole = position.epoch + bool(position.step)
        parts += [(first_whole, section.epochs, 0)] if first_whole < section.epochs else []
        for first_epoch, end_epoch, start_step in parts:
            make_training = functools.partial(
                training_dataset,
                config,
                section.batch_size,
                first_epoch,
                start_step,
                unreadable=unreadable[data.train_split],
            )
            job.model.fit(
                distribute_dataset(strategy, section, make_training),
                initial_epoch=first_epoch,
                epochs=end_epoch,
                steps_per_epoch=job.steps - start_step,
                shuffle=False,
                validation_data=validation,
                validation_steps=validation_steps,
                validation_freq=_validated_epochs(section),
                callbacks=callbacks,
                verbose=0,
            )
    return checkpoints.position


def _finish_epoch(model, epoch, callbacks, validation, validation_steps):
    """What `fit` does after an epoch's last step, for a run that was interrupted there."""
    callbacks = keras.callbacks.CallbackList(callbacks, model=model)
    validated = model.evaluate(validation, steps=validation_steps, callbacks=callbacks, return_dict=True, verbose=0)
    # Here the metrics get the values of the epoch's steps.
    callbacks.on_epoch_begin(epoch)
    logs = dict(model.get_metrics_result())
    callbacks.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in validated.items()})


def distribute_dataset(
    strategy: tf.distribute.Strategy, section: TrainSection, make_dataset: Callable[..., tf.data.Dataset]
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """A dataset as `fit` takes it: each worker makes its own part, with labels at the size of the logits.

    Args:
        strategy: `tf.distribute` strategy.
        section: TrainSection.
        make_dataset: called with ``num_workers=`` and ``worker_index=``; returns this worker's share of each global
            batch.
    """
    every = 8 // section.zoom_factor
    per_replica = section.batch_size // strategy.num_replicas_in_sync

    def coarser(image, labels):
        # Every n-th pixel is where an align-corners resize puts the logits of a smaller zoom_factor.
        return image, {key: label[:, ::every, ::every] for key, label in labels.items()}

    def of_worker(context):
        dataset = make_dataset(num_workers=context.num_input_pipelines, worker_index=context.input_pipeline_id)
        dataset = dataset.rebatch(per_replica, drop_remainder=True)
        return (dataset if every == 1 else dataset.map(coarser)).prefetch(2)

    dataset = strategy.distribute_datasets_from_function(of_worker)
    (device, *_) = devices_of(strategy)
    if is_default(strategy) and "GPU" in device:
        # A strategy does so by itself: the next batch is on the device before its step begins.
        dataset = dataset.apply(tf.data.experimental.prefetch_to_device(device))
    return dataset


def _validated_epochs(section):
    """Epochs, from 1, after which `fit` validates: every n-th and the last."""
    return [epoch for epoch in range(1, section.epochs + 1) if epoch % section.validate_every == 0] + (
        [section.epochs] if section.epochs % section.validate_every else []
    )


def _checkpoint_sizes(job):
    """Bytes of a checkpoint and of a state, with what the files have besides the numbers."""
    weights, slots = bytes_of(job.model.variables), bytes_of(job.model.optimizer.variables)
    overhead = 2000 * len(job.model.variables) + 100_000
    return weights + overhead, weights + slots + overhead
