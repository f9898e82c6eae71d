"""The folder of one training run: where its files lie, and what it says about the network."""

import json
import os
from pathlib import Path

from psanet_tf.config import Config, load_config
from psanet_tf.data.catalog import DatasetInfo


class RunFolder:
    """Paths and records of one run.

    Attributes:
        path: the folder.
        config_file: the configuration as resolved, YAML.
        dataset_file: class names and colours, JSON.
        environment_file: per start of the run: time, command, git revision, package versions, devices; JSON.
        best_file: checkpoint with the best validation mIoU.
        last_file: checkpoint of the last epoch.
        checkpoint_folder: checkpoints of the last N epochs.
        state_file: what resuming needs; the one before it lies beside it.
        schedule_file: `Schedule`, JSON.
        training_data_file, validation_data_file: `Fingerprint` of the data that the run started with, JSON.
        hashes_file: hashes of the data's files, so that they need not be read again; JSON.
        class_weights_file: weights of the classes where they come from the data, JSON.
        csv_file, json_lines_file: one row per epoch.
        log_file: what was said while training, text.
        tensorboard_folder: event files.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.dataset_file = self.path / "dataset.json"
        self.environment_file = self.path / "environment.json"
        self.best_file = self.path / "best.keras"
        self.last_file = self.path / "last.keras"
        self.checkpoint_folder = self.path / "checkpoints"
        self.state_file = self.path / "state.npz"
        self.schedule_file = self.path / "schedule.json"
        self.training_data_file = self.path / "data" / "training.json"
        self.validation_data_file = self.path / "data" / "validation.json"
        self.hashes_file = self.path / "data" / "hashes.json"
        self.class_weights_file = self.path / "class_weights.json"
        self.csv_file = self.path / "metrics.csv"
        self.json_lines_file = self.path / "metrics.jsonl"
        self.log_file = self.path / "train.log"
        self.tensorboard_folder = self.path / "tensorboard"

    def read_info(self) -> DatasetInfo | None:
        """`DatasetInfo` of the run, or None if the folder has none."""
        if not self.dataset_file.is_file():
            return None
        return DatasetInfo.from_dict(json.loads(self.dataset_file.read_text(encoding="utf-8")))

    def read_config(self) -> Config | None:
        """`Config` of the run, or None if the folder has none."""
        return load_config(self.config_file) if self.config_file.is_file() else None


def config_beside(weights: str | os.PathLike) -> Path | None:
    """The configuration of the run folder that the weights are, or lie in; None if there is none."""
    path = Path(weights)
    folders = [path, *path.resolve().parents[:2]]
    return next((RunFolder(folder).config_file for folder in folders if RunFolder(folder).config_file.is_file()), None)
