"""PyTorch's SGD."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.models.variables import decays


@keras.saving.register_keras_serializable(package="psanet_tf")
class SGD(keras.optimizers.Optimizer):
    """Stochastic gradient descent as in PyTorch: b = momentum * b + g, w -= learning_rate * b.

    Unlike `keras.optimizers.SGD` the velocity b holds no learning rate, which matters when that moves,
    and the weight decay is an L2 term of the gradient: g = gradient + weight_decay * w.

    Args:
        learning_rate: float or a `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: in [0, 1).
        weight_decay: factor of the L2 term.
        no_decay_pattern: regular expression; variables whose path it is found in get no L2 term.
        **kwargs: of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        no_decay_pattern: str | None = None,
        name: str = "SGD",
        **kwargs: Any,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if weight_decay is None or weight_decay < 0:
            raise ValueError(f"weight_decay must be 0 or more, got {weight_decay}")
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = float(momentum)
        # Not `weight_decay`: the base class would apply that as a decay apart from the gradient.
        self.l2 = float(weight_decay)
        self.no_decay_pattern = no_decay_pattern

    def build(self, variables: Sequence["keras.Variable"]) -> None:
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        self._decays = [decays(variable.path, self.no_decay_pattern) for variable in variables]

    def update_step(self, gradient: tf.Tensor, variable: "keras.Variable", learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        gradient = tf.cast(gradient, variable.dtype)
        if self.l2 and self._decays[index]:
            gradient += tf.cast(self.l2, variable.dtype) * variable
        # One operation per variable: with separate ones their number takes half the time of building a training step.
        tf.raw_ops.ResourceApplyMomentum(
            var=_handle(variable),
            accum=_handle(self._velocities[index]),
            lr=tf.cast(learning_rate, variable.dtype),
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
        )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "momentum": self.momentum,
            "weight_decay": self.l2,
            "no_decay_pattern": self.no_decay_pattern,
        }


def _handle(variable):
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
