"""Notices that training has gone wrong before anything good is overwritten."""

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras

MAX_DROPPED_STEPS = 100
_ADVICE = (
    "Nothing was overwritten: what the run folder holds is from before. Train into another one with a lower "
    "train.learning_rate, with train.warmup_steps or with train.clip_norm (--init takes a checkpoint of this run)"
)


def check_loss(model: keras.Model, logs: Mapping[str, Any], where: str) -> None:
    """Looks at the loss, or, where its infinities are met by a loss scale, at how often they were.

    Waits for the step to be done.

    Args:
        model: keras.Model compiled with a `DistributedOptimizer`.
        logs: of `on_train_batch_end`. Their loss is the mean since the epoch's start, in which a NaN stays.
        where: words such as "in epoch 3, step 17 of 100".

    Raises:
        FloatingPointError: the loss is infinite or NaN, or a hundred steps in a row were dropped.
    """
    dropped = model.optimizer.dropped_steps
    rate = f"learning rate {float(model.optimizer.learning_rate):.3g}"
    if dropped is None:
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss} {where} ({rate}). {_ADVICE}")
    elif (count := int(tf.convert_to_tensor(dropped))) >= MAX_DROPPED_STEPS:
        raise FloatingPointError(
            f"the last {count} steps were dropped, as their gradients were not finite in float16 however they "
            f"were scaled, {where} ({rate}). {_ADVICE}, or with train.precision mixed_bfloat16 or float32"
        )


def check_weights(model: keras.Model, where: str) -> None:
    """Looks at all that a checkpoint would hold.

    Args:
        model: keras.Model.
        where: as of `check_loss`.

    Raises:
        FloatingPointError: weights or statistics are infinite or NaN.
    """
    for variable in model.variables:
        value = tf.convert_to_tensor(variable)
        if value.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(value)):
            rate = f"learning rate {float(model.optimizer.learning_rate):.3g}"
            raise FloatingPointError(f"{variable.path} became infinite or NaN {where} ({rate}). {_ADVICE}")
