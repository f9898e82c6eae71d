"""The epochs of a run that are still to come, by `model.fit`."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from psanet_tf.config import Config, TrainSection
from psanet_tf.data.pipeline import evaluation_dataset, training_dataset
from psanet_tf.data.readers import list_examples
from psanet_tf.data.unreadable import UnreadableExamples, readable_pipeline_errors
from psanet_tf.keras_api import keras
from psanet_tf.training.agreement import Agreement
from psanet_tf.training.averaging import ValidateAverage
from psanet_tf.training.callbacks import CheckpointCallback, place_in_words
from psanet_tf.training.early_stopping import is_finished
from psanet_tf.training.flops import measure_peak, training_flops
from psanet_tf.training.interruption import StopSignals
from psanet_tf.training.job import Job
from psanet_tf.training.multi_worker import runs_as_chief
from psanet_tf.training.run_callbacks import RunCallbacks, StoppedWithinEpoch
from psanet_tf.training.run_folder import TrainingFolder
from psanet_tf.training.run_log import RunLog
from psanet_tf.training.run_progress import Progress
from psanet_tf.training.state import Position
from psanet_tf.training.step_log import StepLog
from psanet_tf.training.strategy import devices_of, is_default
from psanet_tf.training.tensorboard import TensorBoard


@dataclasses.dataclass(frozen=True)
class Beginning:
    """Where training begins.

    Attributes:
        position: Position.
        metric_values: of the metrics there, from `restore_state`.
    """

    position: Position
    metric_values: Sequence[np.ndarray]


def fit_run(
    config: Config,
    run: TrainingFolder,
    strategy: tf.distribute.Strategy,
    job: Job,
    beginning: Beginning,
    agreement: Agreement,
    signals: StopSignals,
    further_callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Position:
    """Trains to the end of the run, or until a callback ends it.

    Args:
        config: Config.
        run: TrainingFolder.
        strategy: `tf.distribute` strategy.
        job: Job, set to the state at `beginning`.
        beginning: Beginning.
        agreement: Agreement of the workers.
        signals: StopSignals, deferred.
        further_callbacks: see `train`.

    Returns:
        Position at the end.

    Raises:
        see `train`.
    """
    section, data, position = config.train, config.data, beginning.position
    unreadable = {data.train_split: UnreadableExamples(), data.val_split: UnreadableExamples()}
    make_validation = functools.partial(
        evaluation_dataset, config, section.batch_size, unreadable=unreadable[data.val_split]
    )
    # Without end, and counted below: Keras looks at a batch of what is left from the last validation before each one.
    validation = distribute_dataset(strategy, section, lambda **worker: make_validation(**worker).repeat())
    validation_steps = -(-len(list_examples(data, data.val_split)) // section.batch_size)
    is_chief, log = runs_as_chief(strategy), RunLog(run.log_file)
    checkpoints = CheckpointCallback(
        run, section, job.steps, position, beginning.metric_values, agreement, signals, is_chief
    )
    progress = Progress(config, job.steps, position, checkpoints, unreadable, log)
    own = [checkpoints]
    if section.ema_decay is not None:
        own.append(ValidateAverage())
    if is_chief:
        own.append(progress)
        curves = None
        if section.tensorboard:
            curves = TensorBoard(run.tensorboard_folder, checkpoints, job.info, make_validation, section.zoom_factor)
            own.append(curves)
        if section.log_every is not None:
            find_peak = functools.partial(
                measure_peak, section.precision.removeprefix("mixed_"), _machine_devices(strategy)
            )
            flops, write_curves = training_flops(job.model), curves and curves.write_steps
            own.append(StepLog(log, section.log_every, checkpoints, flops, find_peak, write_curves))
    callbacks = RunCallbacks(own, further_callbacks, job.model, checkpoints, agreement)
    with readable_pipeline_errors(data), contextlib.closing(progress):
        callbacks.on_train_begin()
        if position.step == job.steps:
            _finish_epoch(job.model, position.epoch, callbacks, validation, validation_steps)
            position = checkpoints.position
        # An epoch that was interrupted is finished by a `fit` of its own: it has fewer steps.
        parts = [(position.epoch, position.epoch + 1, position.step)] if position.step else []
        first_whole = position.epoch + bool(position.step)
        parts += [(first_whole, section.epochs, 0)] if first_whole < section.epochs else []
        for first_epoch, end_epoch, start_step in parts:
            if callbacks.stopped:
                break
            make_training = functools.partial(
                training_dataset,
                config,
                section.batch_size,
                first_epoch,
                start_step,
                unreadable=unreadable[data.train_split],
            )
            with contextlib.suppress(StoppedWithinEpoch):
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
        callbacks.finish()
    if is_chief and not is_finished(section, checkpoints.position):
        place = place_in_words(checkpoints.position, section, job.steps)
        log.say(f"ended by a callback {place}; the same command goes on from there")
    return checkpoints.position


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


def _finish_epoch(model, epoch, callbacks, validation, validation_steps):
    """What `fit` does after an epoch's last step, for a run that was interrupted there."""
    validated = model.evaluate(validation, steps=validation_steps, callbacks=callbacks, return_dict=True, verbose=0)
    # Here the metrics get the values of the epoch's steps.
    callbacks.on_epoch_begin(epoch)
    logs = dict(model.get_metrics_result())
    callbacks.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in validated.items()})


def _validated_epochs(section):
    """Epochs, from 1, after which `fit` validates: every n-th and the last."""
    return [epoch for epoch in range(1, section.epochs + 1) if epoch % section.validate_every == 0] + (
        [section.epochs] if section.epochs % section.validate_every else []
    )


def _machine_devices(strategy):
    """How many devices like this process's first one there are; CPU devices of one process share its cores."""
    several = tf.config.list_physical_devices("GPU") or isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return strategy.num_replicas_in_sync if several else 1
