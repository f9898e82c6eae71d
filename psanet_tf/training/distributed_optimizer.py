"""What happens between the gradient of one replica and the update of a weight, in an order that is right for many."""

import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.models.variables import decays


@keras.saving.register_keras_serializable(package="psanet_tf")
class DistributedOptimizer(keras.optimizers.Optimizer):
    """Wraps an optimizer: sums gradients over replicas *first*, then looks at them.

    Keras's own optimizers clip, accumulate and check for NaN on the gradient of one replica, before the
    sum. Then clipping depends on the number of replicas, and a NaN that only replica 1 sees passes the check
    of replica 0 and reaches the weights. Here every replica decides by the same summed gradient:

    1. sum over replicas, and division by the loss scale;
    2. with a loss scale: a gradient that is not finite is dropped and the scale halved;
    3. accumulation: only every `accumulation_steps`-th gradient leads to an update, by their mean;
    4. clipping by the global norm;
    5. decoupled weight decay, then the wrapped optimizer's `update_step` with the variable's learning rate;
    6. the exponential moving average of the weights.

    The wrapped optimizer's step counter, and so its learning-rate schedule, counts updates. `gradient_norm` is left
    behind by every update, for those who ask: to sum up a gradient takes far less time than to make it, and nobody
    waits for the number.

    Args:
        optimizer: a `keras.optimizers.Optimizer` whose own clipping, accumulation, weight decay and
            moving average are off, and which does all its work in `update_step` (of Keras's, Nadam does not).
        learning_rate_factors: pairs (regular expression, factor): a variable's learning rate is multiplied
            by the factor of the first expression found in its path.
        decoupled_weight_decay: w -= learning_rate * decoupled_weight_decay * w before each update
            (Loshchilov & Hutter 2019). 0 for optimizers that have an L2 term of their own.
        no_decay_pattern: regular expression; variables whose path it is found in do not decay.
        clip_norm: largest global norm of a gradient, or None.
        accumulation_steps: gradients per update.
        ema_decay: of the moving average of the weights, or None for no average.
        initial_loss_scale: where dynamic loss scaling (for float16) starts, or None for none.
        loss_scale_growth_steps: finite gradients after which the loss scale is doubled.
        name: name of the optimizer.

    Raises:
        ValueError: an argument outside its range, or an option that the wrapped optimizer also has on.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        learning_rate_factors: Iterable[tuple[str, float]] = (),
        decoupled_weight_decay: float = 0.0,
        no_decay_pattern: str | None = None,
        clip_norm: float | None = None,
        accumulation_steps: int = 1,
        ema_decay: float | None = None,
        initial_loss_scale: float | None = None,
        loss_scale_growth_steps: int = 2000,
        name: str = "distributed_optimizer",
    ) -> None:
        _check_arguments(optimizer, decoupled_weight_decay, clip_norm, accumulation_steps, ema_decay)
        super().__init__(learning_rate=0.0, name=name)
        self.optimizer = optimizer
        self.learning_rate_factors = [[str(pattern), float(factor)] for pattern, factor in learning_rate_factors]
        self.decoupled_weight_decay = float(decoupled_weight_decay)
        self.no_decay_pattern = no_decay_pattern
        self.clip_norm = clip_norm
        self.accumulation_steps = int(accumulation_steps)
        self.ema_decay = ema_decay
        self.initial_loss_scale = initial_loss_scale
        self.loss_scale_growth_steps = int(loss_scale_growth_steps)

    @property
    def variables(self) -> list["keras.Variable"]:
        return self._variables + self.optimizer.variables

    @property
    def learning_rate(self) -> "keras.Variable | tf.Tensor":
        return self.optimizer.learning_rate

    @property
    def iterations(self) -> "keras.Variable":
        """Updates so far."""
        return self.optimizer.iterations

    @property
    def factors(self) -> list[float]:
        """Factors of the learning rate that variables have, each once, in no order."""
        return list(set(self._factors))

    @property
    def averages(self) -> "list[keras.Variable] | None":
        """Moving averages of the variables, in the order they were built with; None without `ema_decay`."""
        return self._averages if self.ema_decay is not None else None

    @property
    def gradient_norm(self) -> tf.Variable:
        """float32 scalar: global norm of the last update's gradient before clipping; not part of what is saved."""
        return self._gradient_norm

    @property
    def dropped_steps(self) -> "keras.Variable | None":
        """Gradients that were dropped since the last finite one; None without a loss scale."""
        return self._dropped_steps if self.initial_loss_scale is not None else None

    def build(self, variables: Sequence["keras.Variable"]) -> None:
        if self.built:
            return
        self.optimizer.build(variables)
        super().build(variables)
        self._factors = [self._factor(variable.path) for variable in variables]
        self._decays = [decays(variable.path, self.no_decay_pattern) for variable in variables]
        # Not one of Keras, which would be saved as part of the optimizer's state.
        self._gradient_norm = tf.Variable(0.0, trainable=False, name="gradient_norm")
        if self.accumulation_steps > 1:
            self._accumulators = self.add_optimizer_variables(variables, "accumulator")
            self._accumulated = self.add_variable((), dtype="int", name="accumulated")
        if self.ema_decay is not None:
            self._averages = self.add_optimizer_variables(variables, "average")
        if self.initial_loss_scale is not None:
            initial = keras.initializers.Constant(float(self.initial_loss_scale))
            self._loss_scale = self.add_variable((), initial, dtype="float32", name="loss_scale")
            self._finite_steps = self.add_variable((), dtype="int", name="finite_steps")
            self._dropped_steps = self.add_variable((), dtype="int", name="dropped_steps")

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """Called by `fit` before gradients are taken."""
        if self.initial_loss_scale is None:
            return loss
        scale = self._loss_scale.value if self.built else self.initial_loss_scale
        return loss * tf.cast(scale, loss.dtype)

    def apply(
        self, grads: Sequence[tf.Tensor | None], trainable_variables: Sequence["keras.Variable"] | None = None
    ) -> None:
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        if not self.built:
            self.build(variables)
        replica = tf.distribute.get_replica_context()
        if replica is None:
            raise RuntimeError("gradients must be applied inside a replica, e.g. by fit or strategy.run")
        without = [variable.path for gradient, variable in zip(grads, variables, strict=True) if gradient is None]
        if without:
            raise ValueError(f"the loss does not depend on {', '.join(without)}; set trainable = False there")
        # Nobody differentiates these; without the stop, all_reduce searches the whole graph (see mean_over_replicas).
        grads = [tf.stop_gradient(tf.convert_to_tensor(gradient)) for gradient in grads]
        if replica.num_replicas_in_sync > 1:
            grads = replica.all_reduce(tf.distribute.ReduceOp.SUM, grads)
        self._apply_summed(grads, [self._get_variable_index(variable) for variable in variables])

    def save_own_variables(self, store: MutableMapping[str, np.ndarray]) -> None:
        # Keras comes to the wrapped optimizer by itself.
        for index, variable in enumerate(self._variables):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store: Mapping[str, np.ndarray]) -> None:
        for index, variable in enumerate(self._variables):
            variable.assign(store[str(index)])

    def get_config(self) -> dict[str, Any]:
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "learning_rate_factors": self.learning_rate_factors,
            "decoupled_weight_decay": self.decoupled_weight_decay,
            "no_decay_pattern": self.no_decay_pattern,
            "clip_norm": self.clip_norm,
            "accumulation_steps": self.accumulation_steps,
            "ema_decay": self.ema_decay,
            "initial_loss_scale": self.initial_loss_scale,
            "loss_scale_growth_steps": self.loss_scale_growth_steps,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "DistributedOptimizer":
        optimizer = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects=custom_objects)
        return cls(**(config | {"optimizer": optimizer}))

    def _factor(self, path):
        return next((factor for pattern, factor in self.learning_rate_factors if re.search(pattern, path)), 1.0)

    def _apply_summed(self, grads, indices):
        """In a replica; everything computed here is the same on all of them."""
        finite = due = None
        if self.initial_loss_scale is not None:
            grads = [gradient / tf.cast(self._loss_scale.value, gradient.dtype) for gradient in grads]
            finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in grads])
        if self.accumulation_steps > 1:
            grads = [gradient + self._accumulators[index].value for gradient, index in zip(grads, indices, strict=True)]
            due = tf.equal(self._accumulated.value + 1, self.accumulation_steps)
        mean = 1.0 / self.accumulation_steps
        norm = mean * tf.cast(tf.linalg.global_norm(grads), tf.float32)
        tf.__internal__.distribute.interim.maybe_merge_call(
            self._across_replicas,
            self._distribution_strategy,
            grads,
            norm,
            mean * self._clipping(norm),
            self.learning_rate,
            finite,
            due,
            indices=indices,
        )

    def _clipping(self, norm):
        if self.clip_norm is None:
            return tf.constant(1.0)
        return tf.minimum(1.0, tf.math.divide_no_nan(tf.cast(self.clip_norm, tf.float32), norm))

    def _across_replicas(self, strategy, grads, norm, scale, learning_rate, finite, due, indices):
        def update():
            for gradient, index in zip(grads, indices, strict=True):
                variable = self._trainable_variables[index]
                arguments = (gradient, scale, learning_rate)
                self._on_each_replica(strategy, variable, self._update_variable, *arguments, index=index)
            self._on_each_replica(strategy, self.optimizer._iterations, _increase)
            strategy.extended.update(self._gradient_norm, _set, args=(norm,), group=False)
            if due is not None:
                self._on_each_replica(strategy, self._accumulated, _set, 0)

        def accumulate():
            for gradient, index in zip(grads, indices, strict=True):
                self._on_each_replica(strategy, self._accumulators[index], _set, gradient)
            self._on_each_replica(strategy, self._accumulated, _increase)

        def take():
            if due is None:
                update()
            else:
                tf.cond(strategy.experimental_local_results(due)[0], update, accumulate)

        def take_finite():
            take()
            self._on_each_replica(strategy, self._loss_scale, self._grow_loss_scale)

        def drop():
            self._on_each_replica(strategy, self._loss_scale, self._halve_loss_scale)

        # A condition must be outside the replicas: inside a branch these can't meet for an update.
        if finite is None:
            take()
        else:
            tf.cond(strategy.experimental_local_results(finite)[0], take_finite, drop)

    def _on_each_replica(self, strategy, variable, function, *args, **kwargs):
        strategy.extended.update(variable.value, function, args=args, kwargs=kwargs, group=False)

    def _update_variable(self, variable, gradient, scale, learning_rate, index):
        learning_rate = tf.cast(learning_rate, variable.dtype)
        if self._factors[index] != 1:
            learning_rate *= tf.cast(self._factors[index], variable.dtype)
        if self.decoupled_weight_decay and self._decays[index]:
            variable.assign_sub(learning_rate * tf.cast(self.decoupled_weight_decay, variable.dtype) * variable)
        scaled = gradient
        if self.clip_norm is not None or self.accumulation_steps > 1:
            scaled = gradient * tf.cast(scale, gradient.dtype)
        self.optimizer.update_step(scaled, variable, learning_rate)
        if self.accumulation_steps > 1:
            self.assign(self._accumulators[index], tf.zeros_like(gradient))
        if self.ema_decay is not None:
            average = self._averages[index]
            # The first update starts the average; zeros would bias it.
            first = tf.equal(self.optimizer._iterations.value, 0)
            decay = tf.where(first, tf.zeros((), variable.dtype), tf.cast(self.ema_decay, variable.dtype))
            self.assign(average, decay * average.value + (1 - decay) * variable)

    def _grow_loss_scale(self, loss_scale):
        steps = self._finite_steps.value + 1
        grows = tf.equal(steps, self.loss_scale_growth_steps)
        self.assign(self._finite_steps, tf.where(grows, tf.zeros_like(steps), steps))
        self.assign(self._dropped_steps, 0)
        loss_scale.assign(tf.where(grows, 2 * loss_scale, loss_scale))

    def _halve_loss_scale(self, loss_scale):
        self.assign(self._finite_steps, 0)
        self.assign(self._dropped_steps, self._dropped_steps.value + 1)
        loss_scale.assign(tf.maximum(loss_scale / 2, 1.0))


def _increase(variable):
    variable.assign_add(1)


def _set(variable, value):
    variable.assign(tf.cast(value, variable.dtype))


def _check_arguments(optimizer, decoupled_weight_decay, clip_norm, accumulation_steps, ema_decay):
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(f"optimizer must be a keras.optimizers.Optimizer, got {type(optimizer).__name__}")
    own = ["weight_decay", "clipnorm", "global_clipnorm", "clipvalue", "use_ema", "gradient_accumulation_steps"]
    if active := [name for name in own if getattr(optimizer, name)]:
        raise ValueError(f"{', '.join(active)} of the wrapped optimizer must be off; use this wrapper's options")
    if type(optimizer)._backend_update_step is not keras.optimizers.Optimizer._backend_update_step:
        raise ValueError(f"{type(optimizer).__name__} does part of its work outside update_step and cannot be wrapped")
    if decoupled_weight_decay < 0:
        raise ValueError(f"decoupled_weight_decay must be 0 or more, got {decoupled_weight_decay}")
    if clip_norm is not None and clip_norm <= 0:
        raise ValueError(f"clip_norm must be positive or None, got {clip_norm}")
    if accumulation_steps < 1:
        raise ValueError(f"accumulation_steps must be 1 or more, got {accumulation_steps}")
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay must lie in [0, 1) or be None, got {ema_decay}")
