"""A line every so many steps: on the terminal, in the run folder, and as curves."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from psanet_tf.keras_api import keras
from psanet_tf.training.callbacks import CheckpointCallback
from psanet_tf.training.flops import Peak
from psanet_tf.training.learning_rates import distinct_rates
from psanet_tf.training.run_log import RunLog


class StepLog(keras.callbacks.Callback):
    """Says every `every` steps how training goes. Between those steps it waits for nothing.

    A line holds step and epoch; the mean loss since the line before; the learning rates of all variables, each once;
    the gradient's global norm before clipping, at the last update; images per second without validation and saving;
    the time left with them; and the share of the machine's peak that the network's arithmetic comes to.

    Args:
        log: RunLog.
        every: steps from line to line.
        checkpoints: CheckpointCallback, which knows the place in the run and the time spent on steps; it has to be
            called first.
        flops: of one image in a training step.
        find_peak: gives the machine's `Peak`, or None; asked once, at the first line.
        write_curves: called with the step and {name: value}, or None.
    """

    def __init__(
        self,
        log: RunLog,
        every: int,
        checkpoints: CheckpointCallback,
        flops: int,
        find_peak: Callable[[], Peak | None],
        write_curves: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> None:
        super().__init__()
        self._log = log
        self._every = every
        self._checkpoints = checkpoints
        self._flops = flops
        self._find_peak = find_peak
        self._peak = None
        self._write_curves = write_curves
        self._loss = _Mean()
        self._recent, self._all = _Mean(), _Mean()  # seconds of a step: since the last line, and since the start
        self._between = _Mean()  # seconds from the end of an epoch's steps to the next epoch
        self._epoch_begin = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.monotonic()
        if self._epoch_begin is not None:
            self._between.add(now - self._epoch_begin - self._steps_end, 1)
        self._epoch_begin = now
        self._epoch = epoch
        self._first = self._checkpoints.position.step
        self._seen = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = self._first + batch + 1
        if self._seen is None:
            # The first step of a `fit` builds the graph; its time is left out.
            loss = float(logs["loss"])
            if self._first == 0:
                self._loss.add(loss, 1)
            self._seen = (step, loss * step, self._checkpoints.training_seconds)
        total = self._epoch * self._checkpoints.steps_per_epoch + step
        if total % self._every == 0:
            self._take(step, float(logs["loss"]))
            self._say(total, step, float(logs["loss"]))
            # What saying it takes, the measurement of the peak above all, is no time of a step.
            self._seen = (*self._seen[:2], self._checkpoints.training_seconds)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._steps_end = self._checkpoints.training_seconds
        if self._seen is not None:
            self._take(self._checkpoints.steps_per_epoch, float(logs["loss"]))

    def _take(self, step, mean_loss):
        """Takes over what the steps since the last look were. Keras's loss is the mean since the epoch's beginning."""
        before, losses, seconds = self._seen
        self._seen = (step, mean_loss * step, self._checkpoints.training_seconds)
        if step > before:
            self._loss.add(self._seen[1] - losses, step - before)
            for clock in (self._recent, self._all):
                clock.add(self._seen[2] - seconds, step - before)

    def _say(self, total, step, mean_loss):
        checkpoints = self._checkpoints
        section, per_epoch = checkpoints.section, checkpoints.steps_per_epoch
        rates = distinct_rates(self.model)
        values = {
            "loss": self._loss.value(mean_loss),
            "gradient_norm": float(self.model.optimizer.gradient_norm.numpy()),
            "learning_rate": rates[0],
        }
        shown = ", ".join(f"{rate:.3g}" for rate in rates)
        parts = [
            f"step {total}/{section.epochs * per_epoch}, {step}/{per_epoch} of epoch {self._epoch + 1}",
            f"loss {values['loss']:.4f}",
            f"learning rate{'s' * (len(rates) > 1)} {shown}",
            f"gradient norm {values['gradient_norm']:.3g}",
        ]
        if self._recent.count:
            values["images_per_second"] = section.batch_size / self._recent.value()
            left = (section.epochs * per_epoch - total) * self._all.value()
            left += (section.epochs - self._epoch) * self._between.value(0.0)
            parts += [f"{values['images_per_second']:.1f} images/s", f"about {duration(left)} left"]
            values["share_of_peak"] = self._share(values["images_per_second"])
            if values["share_of_peak"] is not None:
                parts.append(f"{100 * values['share_of_peak']:.1f} % of the peak")
        self._log.say("  ".join(parts))
        self._loss, self._recent = _Mean(), _Mean()
        if self._write_curves is not None:
            finite = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
            self._write_curves(total, finite)

    def _share(self, images_per_second):
        if self._find_peak is not None:
            self._peak, self._find_peak = self._find_peak(), None
            if self._peak is not None:
                self._log.say(
                    f"peak of the machine: {self._peak.flops / 1e12:.3g} TFLOP/s, {self._peak.origin}; a training step "
                    f"is {self._flops / 1e9:.3g} GFLOP per image"
                )
        return None if self._peak is None else self._flops * images_per_second / self._peak.flops


class _Mean:
    def __init__(self):
        self.total, self.count = 0.0, 0

    def add(self, value, count):
        """`value` is the sum of `count` numbers."""
        self.total, self.count = self.total + value, self.count + count

    def value(self, otherwise=None):
        return self.total / self.count if self.count else otherwise


def duration(seconds: float) -> str:
    """ "2 h 05 min", "3 min" or "40 s" """
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
