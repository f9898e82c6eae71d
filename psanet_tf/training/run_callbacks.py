"""The callbacks of a run: one training for all of them, however many `fit`s it takes, which any of them may end."""

from collections.abc import Sequence
from typing import Any

from psanet_tf.keras_api import keras
from psanet_tf.training.agreement import Agreement
from psanet_tf.training.callbacks import CheckpointCallback


class StoppedWithinEpoch(Exception):  # noqa: N818
    """A callback has asked for the end in the middle of an epoch; the state is saved."""


class RunCallbacks(keras.callbacks.CallbackList):
    """What `fit` calls.

    A run is several `fit`s where its first epoch is the rest of an interrupted one. Callbacks such as Keras's
    `EarlyStopping` start over when training begins, and loggers close their files when it ends: they are told of it
    once. `fit` leaves an epoch, as if all its steps were done, when a callback sets `model.stop_training`; here its
    state is saved first, and it is left by an exception.

    Args:
        own: the run's callbacks.
        further: those of whoever called `train`.
        model: keras.Model.
        checkpoints: CheckpointCallback, one of `own`.
        agreement: Agreement of the workers: all stop when one does.

    Attributes:
        stopped: whether a callback has ended training.
    """

    def __init__(
        self,
        own: Sequence[keras.callbacks.Callback],
        further: Sequence[keras.callbacks.Callback],
        model: keras.Model,
        checkpoints: CheckpointCallback,
        agreement: Agreement,
    ) -> None:
        epochs, steps = checkpoints.section.epochs, checkpoints.steps_per_epoch
        super().__init__([*own, *further], add_history=True, model=model, epochs=epochs, steps=steps, verbose=0)
        self.stopped = False
        self._checkpoints = checkpoints
        self._agreement = agreement
        # Of others there may be some on one worker only, and all have to meet at the same places.
        (self._stops_within_epochs,) = agreement.any([bool(further)])
        self._has_begun = False
        self._logs = None
        model.stop_training = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._has_begun:
            self._has_begun = True
            super().on_train_begin(logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(batch, logs)
        # The run's own never ask for it: workers need not meet once more at every step.
        if self._stops_within_epochs and self._asked_to_stop() and self._checkpoints.save_here():
            raise StoppedWithinEpoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._asked_to_stop()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """A `fit` is over, which need not be the last."""
        self._logs = logs

    def finish(self) -> None:
        """Tells the callbacks that training is over."""
        super().on_train_end(self._logs)

    def _asked_to_stop(self):
        (self.stopped,) = self._agreement.any([bool(self.model.stop_training)])
        self.model.stop_training = self.stopped
        return self.stopped
