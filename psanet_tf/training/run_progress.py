"""How far a run is, for those who watch it."""

from collections.abc import Mapping
from typing import Any

from psanet_tf.config import Config
from psanet_tf.data.unreadable import UnreadableExamples
from psanet_tf.keras_api import keras
from psanet_tf.progress import track
from psanet_tf.training.callbacks import CheckpointCallback
from psanet_tf.training.early_stopping import describe_stop, stops_early
from psanet_tf.training.run_log import RunLog
from psanet_tf.training.state import Position


class Progress(keras.callbacks.Callback):
    """One bar for the whole run and one line per epoch.

    Args:
        config: Config.
        steps_per_epoch: of a whole epoch.
        position: Position that training starts from.
        checkpoints: CheckpointCallback, whose rows are shown.
        unreadable: {split: UnreadableExamples} of the input pipelines.
        log: RunLog, for the lines.
    """

    def __init__(
        self,
        config: Config,
        steps_per_epoch: int,
        position: Position,
        checkpoints: CheckpointCallback,
        unreadable: Mapping[str, UnreadableExamples],
        log: RunLog,
    ) -> None:
        super().__init__()
        self.data = config.data
        self.epochs = config.train.epochs
        self.early_stopping = config.train.early_stopping
        self.log = log
        self.checkpoints = checkpoints
        self.unreadable = unreadable
        done = position.epoch * steps_per_epoch + position.step
        # Where there is no terminal, the lines of `StepLog` take the place of the bar's.
        lines = config.train.log_every is None
        self._steps = iter(track(range(self.epochs * steps_per_epoch - done), "training", lines=lines))

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        next(self._steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = self.checkpoints.records.rows[-1]
        shown = {"loss": "loss", "miou": "mIoU", "val_loss": "val loss", "val_miou": "val mIoU"}
        parts = [f"epoch {epoch + 1}/{self.epochs}", *(f"{shown[key]} {row[key]:.4f}" for key in shown if key in row)]
        if "val_miou" in row and self.checkpoints.position.best_epoch == epoch + 1:
            parts[-1] += " (best)"
        parts += [f"{row['images_per_second']:.1f} images/s"] if "images_per_second" in row else []
        parts.append(f"{row['seconds']:.0f} s")
        self.log.say("  ".join(parts))
        for split, unreadable in self.unreadable.items():
            if summary := unreadable.take_summary(self.data, split):
                self.log.say(summary)
        if stops_early(self.early_stopping, self.checkpoints.position) and epoch + 1 < self.epochs:
            self.log.say(describe_stop(self.early_stopping, self.checkpoints.position))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        # The bar counts a step when the next one is asked for.
        if self.checkpoints.position.epoch == self.epochs:
            next(self._steps, None)

    def close(self) -> None:
        """Takes an unfinished bar off the terminal."""
        self._steps.close()
