"""PyTorch's SGD for legacy Keras, with a learning rate of its own for the attention module and the heads."""

import re
from typing import Any

import tensorflow as tf
from official.modeling.optimization import optimizer_factory

from psanet_tf.keras_api import keras
from psanet_tf.models.variables import HEAD_PATTERN, NO_DECAY_PATTERN, decays


@keras.saving.register_keras_serializable(package="psanet_tf_garden")
class SGD(keras.optimizers.legacy.Optimizer):
    """Stochastic gradient descent as in PyTorch: b = momentum * b + g, w -= learning_rate * b.

    The velocity b holds no learning rate, and the weight decay is an L2 term of the gradient: g = gradient +
    weight_decay * w. One of the optimizers that Keras calls legacy: those the Garden's moving average and loss scale
    work with.

    Args:
        learning_rate: float or a schedule; of the backbone.
        momentum: in [0, 1).
        weight_decay: factor of the L2 term.
        head_learning_rate_factor: of the learning rate for the attention module and both heads.
        decay_norm_and_bias: False leaves the L2 term out for batch normalization and biases.
        **kwargs: of the base class, e.g. `global_clipnorm`.

    Raises:
        ValueError: an argument out of its range.
    """

    _HAS_AGGREGATE_GRAD = True

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        head_learning_rate_factor: float = 10.0,
        decay_norm_and_bias: bool = True,
        name: str = "SGD",
        **kwargs: Any,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if weight_decay < 0:
            raise ValueError(f"weight_decay must be 0 or more, got {weight_decay}")
        if head_learning_rate_factor <= 0:
            raise ValueError(f"head_learning_rate_factor must be above 0, got {head_learning_rate_factor}")
        super().__init__(name, **kwargs)
        self._set_hyper("learning_rate", learning_rate)
        self._set_hyper("decay", self._initial_decay)
        self.momentum = float(momentum)
        self.weight_decay = float(weight_decay)
        self.head_learning_rate_factor = float(head_learning_rate_factor)
        self.decay_norm_and_bias = bool(decay_norm_and_bias)

    def _create_slots(self, var_list):
        for variable in var_list:
            self.add_slot(variable, "velocity")

    def _resource_apply_dense(self, grad, var, apply_state=None):
        dtype = var.dtype.base_dtype
        state = (apply_state or {}).get((var.device, dtype)) or self._fallback_apply_state(var.device, dtype)
        path = path_of(var)
        rate = state["lr_t"]
        if re.search(HEAD_PATTERN, path):
            rate = rate * tf.cast(self.head_learning_rate_factor, dtype)
        if self.weight_decay and decays(path, None if self.decay_norm_and_bias else NO_DECAY_PATTERN):
            grad = grad + tf.cast(self.weight_decay, dtype) * var
        return tf.raw_ops.ResourceApplyMomentum(
            var=var.handle,
            accum=self.get_slot(var, "velocity").handle,
            lr=rate,
            grad=grad,
            momentum=tf.cast(self.momentum, dtype),
        )

    def _resource_apply_sparse(self, grad, var, indices, apply_state=None):
        raise NotImplementedError(f"no weight of a PSANet has a sparse gradient, {var.name} has")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "learning_rate": self._serialize_hyperparameter("learning_rate"),
            "decay": self._serialize_hyperparameter("decay"),
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "head_learning_rate_factor": self.head_learning_rate_factor,
            "decay_norm_and_bias": self.decay_norm_and_bias,
        }


def path_of(variable: tf.Variable) -> str:
    """``layer/sublayer/kernel`` of a variable of legacy Keras, or of a replica's part of one."""
    return re.sub(r"(/replica_\d+)?(:\d+)?$", "", variable.name)


optimizer_factory.register_optimizer_cls("psanet_sgd", SGD)
