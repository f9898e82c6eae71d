"""From the `train:` section to learning-rate schedule, optimizer and losses."""

from typing import Any

import tensorflow as tf

from psanet_tf.config import TrainSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.keras_api import keras
from psanet_tf.losses import DiceLoss, FocalLoss, LovaszSoftmaxLoss, SegmentationLoss, WeightedSum
from psanet_tf.models import PSANet
from psanet_tf.models.variables import NO_DECAY_PATTERN
from psanet_tf.training.distributed_optimizer import DistributedOptimizer
from psanet_tf.training.learning_rates import learning_rate_factors
from psanet_tf.training.optimizers import SGD

INITIAL_LOSS_SCALE = 2.0**15


@keras.saving.register_keras_serializable(package="psanet_tf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Multiplies a schedule by (i + 1) / `steps` for the first `steps` updates.

    Args:
        schedule: a `keras.optimizers.schedules.LearningRateSchedule`.
        steps: updates, at least 1.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"steps must be 1 or more, got {steps}")
        super().__init__()
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step: "int | tf.Tensor | keras.Variable") -> tf.Tensor:
        rate = self.schedule(step)
        return rate * tf.minimum((tf.cast(step, rate.dtype) + 1) / self.steps, 1)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["steps"])


def build_schedule(section: TrainSection, updates: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Learning rate of update i (from 0), after an optional warm-up.

    With ``schedule: poly`` base * (1 - i / updates) ** poly_power, with ``cosine``
    base * (1 + cos(pi * i / updates)) / 2 (Loshchilov and Hutter 2017, without restarts).

    Args:
        section: `TrainSection`.
        updates: updates of the whole run.
    """
    schedules = keras.optimizers.schedules
    if section.schedule == "cosine":
        schedule = schedules.CosineDecay(section.learning_rate, updates)
    else:
        schedule = schedules.PolynomialDecay(
            section.learning_rate, updates, end_learning_rate=0.0, power=section.poly_power
        )
    return WarmUp(schedule, section.warmup_steps) if section.warmup_steps else schedule


def build_optimizer(section: TrainSection, updates: int, model: PSANet | None = None) -> DistributedOptimizer:
    """The optimizer of a `TrainSection`, inside the scope of the `tf.distribute` strategy.

    Args:
        section: `TrainSection`.
        updates: updates of the whole run, for the schedule.
        model: the network, in which the patterns of `learning_rate_multipliers` are looked up; needed with them only.

    Returns:
        DistributedOptimizer.

    Raises:
        ValueError: `optimizer_arguments` that the Keras optimizer does not take, or a pattern that fits nothing.
    """
    schedule = build_schedule(section, updates)
    no_decay = None if section.decay_norm_and_bias else NO_DECAY_PATTERN
    if section.optimizer == "sgd":
        optimizer = SGD(schedule, section.momentum, section.weight_decay, no_decay)
    else:
        optimizer = _keras_optimizer(section, schedule)
    return DistributedOptimizer(
        optimizer,
        learning_rate_factors=learning_rate_factors(section, model),
        decoupled_weight_decay=0.0 if section.optimizer == "sgd" else section.weight_decay,
        no_decay_pattern=no_decay,
        clip_norm=section.clip_norm,
        accumulation_steps=section.accumulation_steps,
        ema_decay=section.ema_decay,
        initial_loss_scale=INITIAL_LOSS_SCALE if section.precision == "mixed_float16" else None,
    )


def _keras_optimizer(section, schedule):
    classes = {name.lower(): value for name, value in vars(keras.optimizers).items()}
    try:
        return classes[section.optimizer](schedule, **section.optimizer_arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"train.optimizer_arguments {section.optimizer_arguments} do not suit {section.optimizer}: {error}"
        ) from None


def build_losses(section: TrainSection, info: DatasetInfo, aux_head: bool = True) -> dict[str, Any]:
    """Arguments of `keras.Model.compile` for the outputs of a PSANet.

    Args:
        section: `TrainSection`, its class weights as numbers (see `class_weights.with_class_weights`).
        info: `DatasetInfo` of the labels.
        aux_head: whether the network has an auxiliary output.

    Returns:
        {"loss": {output: loss}, "loss_weights": {output: weight}}, each loss the `SegmentationLoss` or, as `loss` says,
        another one or a `WeightedSum`; no loss for the auxiliary output where `aux_weight` is 0. {"loss": loss} for a
        network of one output.

    Raises:
        ValueError: `class_weights` of another length than there are classes.
    """
    num_classes = info.num_classes
    if section.class_weights is not None and len(section.class_weights) != num_classes:
        raise ValueError(
            f"train.class_weights: {info.name} has {num_classes} classes, got {len(section.class_weights)} weights"
        )
    if not aux_head:
        return {"loss": _build_loss(section, info)}
    if section.aux_weight == 0:
        return {"loss": {"logits": _build_loss(section, info), "aux_logits": None}}
    return {
        "loss": {"logits": _build_loss(section, info), "aux_logits": _build_loss(section, info)},
        "loss_weights": {"logits": 1.0, "aux_logits": section.aux_weight},
    }


def _build_loss(section, info):
    ignored, class_weights = info.ignore_label, section.class_weights
    make = {
        "cross_entropy": lambda: SegmentationLoss(
            ignored, class_weights, section.label_smoothing, section.ohem_threshold, section.ohem_min_kept
        ),
        "focal": lambda: FocalLoss(section.focal_gamma, ignored, class_weights),
        "dice": lambda: DiceLoss(ignored),
        "lovasz_softmax": lambda: LovaszSoftmaxLoss(ignored),
    }
    losses = [make[name]() for name in section.loss]
    weights = list(section.loss.values())
    return losses[0] if weights == [1.0] else WeightedSum(losses, weights)
