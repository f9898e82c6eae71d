"""What a run would be, found out before it: sizes, memory, steps, and a few steps timed."""

import functools
import itertools
import resource
import statistics
import sys
import time

import tensorflow as tf

from psanet_tf.config import Config
from psanet_tf.data.pipeline import training_dataset
from psanet_tf.data.readers import list_examples
from psanet_tf.data.statistics import with_statistics
from psanet_tf.data.unreadable import readable_pipeline_errors
from psanet_tf.files import readable_size
from psanet_tf.keras_api import keras
from psanet_tf.training.class_weights import with_estimated_class_weights
from psanet_tf.training.fit_memory import describe_proposal, fit_memory
from psanet_tf.training.fitting import distribute_dataset
from psanet_tf.training.job import build_job
from psanet_tf.training.learning_rates import describe_learning_rates
from psanet_tf.training.memory import estimate_memory
from psanet_tf.training.step_log import duration
from psanet_tf.training.strategy import build_strategy, devices_of
from psanet_tf.training.trainer import prepare_data
from psanet_tf.weights.initial_weights import load_configured_weights

_TIMED_STEPS = 3


def dry_run(config: Config, memory_limit: int | None = None) -> str:
    """Builds everything, trains `_TIMED_STEPS` + 1 steps without a run folder, and describes the run.

    Args:
        config: Config.
        memory_limit: bytes that a device has. Settings that fit are proposed, and steps are taken only if the
            configuration is one of them.

    Returns:
        Text of several lines.

    Raises:
        ValueError, OSError: as `train`; or nothing fits.
    """
    prepare_data(config)
    config, line = with_statistics(config)
    if line:
        print(line, file=sys.stderr)
    config, weight_lines = with_estimated_class_weights(config)
    section = config.train
    strategy = build_strategy(section)
    job = build_job(config, strategy)
    lines = load_configured_weights(job.model, config)
    replicas = strategy.num_replicas_in_sync
    memory = estimate_memory(job.model, section.batch_size // replicas)
    proposal = None
    if memory_limit is not None:
        proposal = fit_memory(job.model, section, replicas, memory_limit)
        lines += describe_proposal(proposal, section, replicas, memory_limit)
    steps = section.epochs * job.steps
    counts = {
        split: len(list_examples(config.data, split)) for split in (config.data.train_split, config.data.val_split)
    }
    parameters = sum(variable.shape.num_elements() for variable in (w.value for w in job.model.trainable_weights))
    lines += [
        f"network: images {_size(job.model.input_shape)}, logits {_size(job.model.get_layer('logits').output.shape)}, "
        f"{job.info.num_classes} classes, {parameters / 1e6:.2f} million trainable parameters",
        "data: " + ", ".join(f"{count} images in {split!r}" for split, count in counts.items()),
        f"steps: {job.steps} per epoch, {steps} in {section.epochs} epochs"
        + (f", an update every {section.accumulation_steps}" if section.accumulation_steps > 1 else ""),
        *weight_lines,
        f"devices: {', '.join(devices_of(strategy))}; {section.batch_size // replicas} images on each",
        *describe_learning_rates(section, job.model),
        f"XLA compiles the steps: {'yes' if job.model.jit_compile else 'no'} (train.jit_compile: "
        f"{str(section.jit_compile).lower()})",
        f"memory per replica, estimated: {readable_size(memory.total)} (weights {readable_size(memory.weights)}, "
        f"gradients {readable_size(memory.gradients)}, optimizer {readable_size(memory.optimizer)}, "
        f"activations {readable_size(memory.activations)})",
    ]
    if proposal is None or (proposal.batch_size, proposal.rematerialize) == (section.batch_size, section.rematerialize):
        seconds = _time_steps(config, strategy, job)
        lines += [
            f"memory, largest measured: {_peak_memory()}",
            f"one step: {statistics.median(seconds[1:]):.2f} s (the first, which builds the graph, {seconds[0]:.1f} s)",
            f"whole run without validation: about {duration(statistics.median(seconds[1:]) * steps)}",
        ]
    return "\n".join(lines)


def _time_steps(config, strategy, job):
    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # waits for the step to be done
            times.append(time.monotonic())

    times = [time.monotonic()]
    batches = distribute_dataset(
        strategy, config.train, functools.partial(training_dataset, config, config.train.batch_size)
    )
    with readable_pipeline_errors(config.data):
        job.model.fit(
            batches, steps_per_epoch=_TIMED_STEPS + 1, epochs=1, shuffle=False, callbacks=[Clock()], verbose=0
        )
    return [end - start for start, end in itertools.pairwise(times)]


def _peak_memory():
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        peaks = [tf.config.experimental.get_memory_info(gpu.name.split("device:")[-1])["peak"] for gpu in gpus]
        return f"{readable_size(max(peaks))} on a GPU"
    return f"{readable_size(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)} in this process"


def _size(shape):
    return " x ".join(str(length) for length in shape[1:3])
