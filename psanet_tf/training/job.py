"""What one run trains: the network, compiled, with optimizer and losses."""

import dataclasses

import tensorflow as tf

from psanet_tf.config import Config
from psanet_tf.data.catalog import DatasetInfo, info_of
from psanet_tf.data.pipeline import steps_per_epoch
from psanet_tf.data.readers import list_examples
from psanet_tf.data.scale import with_long_side
from psanet_tf.keras_api import keras
from psanet_tf.layers import freeze_batch_norm
from psanet_tf.metrics import MeanIoU
from psanet_tf.models import build_model
from psanet_tf.training.freezing import freeze
from psanet_tf.training.prebuilding import build_for_fit
from psanet_tf.training.recipe import build_losses, build_optimizer
from psanet_tf.training.strategy import uses_xla
from psanet_tf.weights.description import Description, describe


@dataclasses.dataclass(frozen=True)
class Job:
    """What one run trains: compiled model, facts about the data, and steps per epoch."""

    model: keras.Model
    info: DatasetInfo
    steps: int


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
        optimizer = build_optimizer(section, updates, model)
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
