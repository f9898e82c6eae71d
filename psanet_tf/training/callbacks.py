"""What happens beside the steps of a run: checkpoints, records, the end when it is asked for."""

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from psanet_tf.config import TrainSection
from psanet_tf.keras_api import keras
from psanet_tf.training.agreement import Agreement
from psanet_tf.training.averaging import averaged_weights
from psanet_tf.training.checkpoints import copy_checkpoint, plain_copy, save_checkpoint
from psanet_tf.training.divergence import check_loss, check_weights
from psanet_tf.training.early_stopping import stops_early, watched
from psanet_tf.training.interruption import SIGNALS, StopSignals, TrainingInterrupted
from psanet_tf.training.records import Records, plain_names
from psanet_tf.training.run_folder import TrainingFolder
from psanet_tf.training.state import Position, save_state
from psanet_tf.weights.files import weights_identity

_STEPS_BETWEEN_CHECKS = 50


class CheckpointCallback(keras.callbacks.Callback):
    """Writes checkpoints, the metrics table, and what resuming needs; ends training when it is asked to, or diverges.

    Args:
        run: TrainingFolder.
        section: TrainSection.
        steps_per_epoch: of a whole epoch.
        position: Position that training starts from.
        metric_values: values of the metrics at `position`, from `restore_state`.
        agreement: Agreement of the workers.
        signals: StopSignals.
        is_chief: False on the workers that leave the files to the first one.
    """

    def __init__(
        self,
        run: TrainingFolder,
        section: TrainSection,
        steps_per_epoch: int,
        position: Position,
        metric_values: Sequence[np.ndarray],
        agreement: Agreement,
        signals: StopSignals,
        is_chief: bool = True,
    ) -> None:
        super().__init__()
        self.run = run
        self.section = section
        self.steps_per_epoch = steps_per_epoch
        self.position = position
        self.records = Records(run, position.epoch)
        self._metric_values = metric_values
        self._agreement = agreement
        self._signals = signals
        self._is_chief = is_chief
        self._plain = None
        self._saved = time.monotonic()
        self._clock = _Clock()

    @property
    def training_seconds(self) -> float:
        """Seconds of this epoch in which steps were taken."""
        return self._clock.spent()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._first_step = self._step = self.position.step
        self._logs = None
        self._clock.start()
        # `fit` has just reset the metrics; those of an interrupted epoch go on where they were.
        for variable, value in zip(self.model.metrics_variables, self._metric_values, strict=False):
            variable.assign(value)
        self._metric_values = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = self._step = self._first_step + batch + 1
        self._logs = logs
        if batch == 0:
            # The first step builds the graph.
            float(logs["loss"])
            self._clock.first_step_done()
        if step % _STEPS_BETWEEN_CHECKS == 0:
            check_loss(self.model, logs, self._where(step))
        stop, due = self._agree()
        every = self.section.save_every_steps
        if step < self.steps_per_epoch and (stop or due or (every and step % every == 0)):
            self._save_within_epoch(step)
            self._stop(stop)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        # Validation may take long: whoever interrupts it shall not lose the epoch. Where `psanet` comes back to an
        # epoch that lacks nothing but this, the state is saved already.
        if self.position.step < self.steps_per_epoch:
            self._save_within_epoch(self.steps_per_epoch)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._stop(self._agree()[0])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._wait_for_steps()
        if self._logs is not None:
            check_loss(self.model, self._logs, self._where(self.steps_per_epoch))
        check_weights(self.model, self._where(self.steps_per_epoch))
        row = self._row(epoch, plain_names(logs))
        best = self.position.best_miou
        improved = "val_miou" in row and (best is None or row["val_miou"] > best)
        self.position = dataclasses.replace(
            self.position,
            epoch=epoch + 1,
            step=0,
            best_miou=row["val_miou"] if improved else best,
            best_epoch=epoch + 1 if improved else self.position.best_epoch,
        )
        if self._is_chief:
            self._save_checkpoints(epoch + 1)
            self.records.add(row)
            if improved:
                self.position = dataclasses.replace(self.position, best_weights=weights_identity(self.run.last_file))
        self.position = watched(self.section.early_stopping, self.position, row)
        if stops_early(self.section.early_stopping, self.position):
            self.model.stop_training = True
        # A run that is interrupted before this repeats the epoch and writes the files above again.
        self._save_state()
        if improved and self._is_chief:
            # Interrupted here, the copy is made when the run goes on: the state knows what it lacks.
            copy_checkpoint(self.run.last_file, self.run.best_file)
        if epoch + 1 < self.section.epochs:
            self._stop(self._agree()[0])

    def save_here(self) -> bool:
        """Saves the state after the step that training is at.

        Returns:
            Whether that is within an epoch; where it is not, nothing is saved, since `on_epoch_end` does.
        """
        if self._step == self.steps_per_epoch:
            return False
        self._save_within_epoch(self._step)
        return True

    def _agree(self):
        """(number of the signal that some worker got, or 0; whether the first worker finds it time to save)"""
        minutes = self.section.save_every_minutes
        due = self._is_chief and minutes is not None and time.monotonic() - self._saved >= 60 * minutes
        *received, due = self._agreement.any([*(self._signals.received == number for number in SIGNALS), due])
        return next((number for number, came in zip(SIGNALS, received, strict=True) if came), 0), due

    def _stop(self, number):
        if number:
            place = place_in_words(self.position, self.section, self.steps_per_epoch)
            raise TrainingInterrupted(
                number,
                f"stopped by {number.name} {place}, whose state is "
                f"saved in {self.run.path}; the same command goes on from there",
            )

    def _save_within_epoch(self, step):
        self._wait_for_steps()
        if self._logs is not None:
            check_loss(self.model, self._logs, self._where(step))
        check_weights(self.model, self._where(step))
        self.position = dataclasses.replace(self.position, step=step)
        self._save_state()
        if step < self.steps_per_epoch:
            self._clock.resume()

    def _wait_for_steps(self):
        """Until the device is done with all that it was given; training's time ends here."""
        if self._logs is not None:
            float(self._logs["loss"])
        self._clock.pause()

    def _where(self, step):
        return f"in epoch {self.position.epoch + 1}, step {step} of {self.steps_per_epoch}"

    def _row(self, epoch, logs):
        steps = self.steps_per_epoch - self._first_step
        row = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self.steps_per_epoch,
            "learning_rate": float(self.model.optimizer.learning_rate),
            **logs,
            "seconds": round(self._clock.total(), 2),
            "images_per_second": self._clock.rate(steps, self.section.batch_size),
        }
        # In float16 a step whose loss was infinite is dropped, but the mean over the epoch is lost.
        return {key: value for key, value in row.items() if value is not None and math.isfinite(value)}

    def _save_checkpoints(self, epoch):
        if self._plain is None:
            self._plain = plain_copy(self.model)
        with averaged_weights(self.model):
            self._plain.set_weights(self.model.get_weights())
        save_checkpoint(self._plain, self.run.last_file)
        if self.section.keep_last:
            copy_checkpoint(self.run.last_file, self.run.checkpoint_folder / f"epoch_{epoch:05d}.keras")
            for old in sorted(self.run.checkpoint_folder.glob("epoch_*.keras"))[: -self.section.keep_last]:
                old.unlink()

    def _save_state(self):
        save_state(self.run.state_file, self.model, self.position, is_chief=self._is_chief)
        self._saved = time.monotonic()


class _Clock:
    """Seconds of an epoch, and those of them in which steps were taken."""

    def start(self):
        self._begin = self._running = time.monotonic()
        self._spent = 0.0
        self._first_seconds = None

    def first_step_done(self):
        self._first_seconds = time.monotonic() - self._begin

    def pause(self):
        if self._running is not None:
            self._spent += time.monotonic() - self._running
            self._running = None

    def resume(self):
        self._running = time.monotonic()

    def spent(self):
        return self._spent + (0.0 if self._running is None else time.monotonic() - self._running)

    def total(self):
        return time.monotonic() - self._begin

    def rate(self, steps, batch_size):
        """Images per second of training, without the first of several steps; None if none was taken."""
        if self._first_seconds is None:
            return None
        spent = self._spent
        if steps > 1:
            spent, steps = spent - self._first_seconds, steps - 1
        return round(steps * batch_size / spent, 2)


def place_in_words(position: Position, section: TrainSection, steps_per_epoch: int) -> str:
    """ "after epoch 3 of 10", or "in epoch 4 of 10 after step 5 of 100" """
    if position.step == 0:
        return f"after epoch {position.epoch} of {section.epochs}"
    return f"in epoch {position.epoch + 1} of {section.epochs} after step {position.step} of {steps_per_epoch}"
