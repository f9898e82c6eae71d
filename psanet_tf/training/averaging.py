"""The moving average of the weights in place of the weights, for a while."""

import contextlib
from collections.abc import Iterator
from typing import Any

from psanet_tf.keras_api import keras


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Within the block the model has the optimizer's moving averages as weights, if it keeps any.

    Args:
        model: keras.Model compiled with a `DistributedOptimizer`.
    """
    averages = model.optimizer.averages
    if averages is None or int(model.optimizer.iterations.numpy()) == 0:
        yield
        return
    variables = model.trainable_variables
    values = [variable.numpy() for variable in variables]
    try:
        for variable, average in zip(variables, averages, strict=True):
            variable.assign(average.numpy())
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


class ValidateAverage(keras.callbacks.Callback):
    """Validation during `fit` sees the moving average of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self._averaged = None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._averaged = averaged_weights(self.model)
        self._averaged.__enter__()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self._averaged.__exit__(None, None, None)
