"""What happens beside the steps of a run: checkpoints, records, progress."""

import dataclasses
import math
import sys
import time

from psanet_tf.keras_api import keras
from psanet_tf.models.weights_files import weights_identity
from psanet_tf.progress import track
from psanet_tf.training.averaging import averaged_weights
from psanet_tf.training.checkpoints import copy_checkpoint, plain_copy, save_checkpoint
from psanet_tf.training.records import Records, plain_names
from psanet_tf.training.state import save_state


class Keeper(keras.callbacks.Callback):
    """Writes checkpoints, the metrics table, and what resuming needs.

    Args:
        run: RunFolder.
        section: TrainSection.
        steps_per_epoch: of a whole epoch.
        position: Position that training starts from.
        metric_values: values of the metrics at `position`, from `restore_state`.
        writes: False on the workers that leave the files to the first one.
    """

    def __init__(self, run, section, steps_per_epoch, position, metric_values, writes=True):
        super().__init__()
        self.run = run
        self.section = section
        self.steps_per_epoch = steps_per_epoch
        self.position = position
        self.records = Records(run, position.epoch)
        self._metric_values = metric_values
        self._writes = writes
        self._plain = None

    def on_epoch_begin(self, epoch, logs=None):
        self._first_step = self.position.step
        self._start = time.monotonic()
        # `fit` has just reset the metrics; those of an interrupted epoch go on where they were.
        for variable, value in zip(self.model.metrics_variables, self._metric_values, strict=False):
            variable.assign(value)
        self._metric_values = []

    def on_train_batch_end(self, batch, logs=None):
        step = self._first_step + batch + 1
        every = self.section.save_every_steps
        if every and step % every == 0 and step < self.steps_per_epoch:
            _check_finite(logs, self.position.epoch + 1)
            self.position = dataclasses.replace(self.position, step=step)
            self._save_state()

    def on_epoch_end(self, epoch, logs=None):
        _check_finite(logs, epoch + 1)
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
        if self._writes:
            self._save_checkpoints(epoch + 1)
            self.records.add(row)
            if improved:
                self.position = dataclasses.replace(self.position, best_weights=weights_identity(self.run.last_file))
        # A run that is interrupted before this repeats the epoch and writes the files above again.
        self._save_state()
        if improved and self._writes:
            # Interrupted here, the copy is made when the run goes on: the state knows what it lacks.
            copy_checkpoint(self.run.last_file, self.run.best_file)

    def _row(self, epoch, logs):
        seconds = time.monotonic() - self._start
        pictures = (self.steps_per_epoch - self._first_step) * self.section.batch_size
        return {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self.steps_per_epoch,
            "learning_rate": float(self.model.optimizer.learning_rate),
            **logs,
            "seconds": round(seconds, 2),
            "images_per_second": round(pictures / seconds, 2),
        }

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
        save_state(self.run.state_file, self.model, self.position, writes=self._writes)


class Progress(keras.callbacks.Callback):
    """One bar for the whole run and one line per epoch.

    Args:
        config: Config.
        steps_per_epoch: of a whole epoch.
        position: Position that training starts from.
        keeper: Keeper, whose rows are shown.
        unreadable: {split: UnreadableExamples} of the input pipelines.
    """

    def __init__(self, config, steps_per_epoch, position, keeper, unreadable):
        super().__init__()
        self.data = config.data
        self.epochs = config.train.epochs
        self.keeper = keeper
        self.unreadable = unreadable
        done = position.epoch * steps_per_epoch + position.step
        self._steps = iter(track(range(self.epochs * steps_per_epoch - done), "training"))

    def on_train_batch_begin(self, batch, logs=None):
        next(self._steps)

    def on_epoch_end(self, epoch, logs=None):
        row = self.keeper.records.rows[-1]
        parts = [f"epoch {epoch + 1}/{self.epochs}", f"loss {row['loss']:.4f}", f"mIoU {row['miou']:.4f}"]
        if "val_miou" in row:
            best = " (best)" if self.keeper.position.best_epoch == epoch + 1 else ""
            parts += [f"val loss {row['val_loss']:.4f}", f"val mIoU {row['val_miou']:.4f}{best}"]
        parts += [f"{row['images_per_second']:.1f} images/s", f"{row['seconds']:.0f} s"]
        print("  ".join(parts), file=sys.stderr, flush=True)
        for split, unreadable in self.unreadable.items():
            if summary := unreadable.take_summary(self.data, split):
                print(summary, file=sys.stderr, flush=True)

    def on_train_end(self, logs=None):
        # The bar counts a step when the next one is asked for.
        if self.keeper.position.epoch == self.epochs:
            next(self._steps, None)

    def close(self):
        """Takes an unfinished bar off the terminal."""
        self._steps.close()


def _check_finite(logs, epoch):
    loss = float(logs["loss"])
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss became {loss} in epoch {epoch}; the last checkpoint is kept. Lower train.learning_rate, "
            "add train.warmup_steps or train.clip_norm"
        )
