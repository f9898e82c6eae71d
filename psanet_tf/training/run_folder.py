"""The folder of one training run: what is in it, whether it can be written, and who writes it."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import psanet_tf
from psanet_tf.config import dump_config, flat_config, load_config
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.files import atomic_file

# What may differ between a run and its continuation: neither changes the weights.
_MAY_DIFFER = (
    "data.root",
    "data.workers",
    "evaluate",
    "train.keep_last",
    "train.save_every_steps",
    "train.tensorboard",
)
_PACKAGES = ("tensorflow", "keras", "numpy")


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
        state_file: what resuming needs.
        csv_file, json_lines_file: one row per epoch.
        tensorboard_folder: event files.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.dataset_file = self.path / "dataset.json"
        self.environment_file = self.path / "environment.json"
        self.best_file = self.path / "best.keras"
        self.last_file = self.path / "last.keras"
        self.checkpoint_folder = self.path / "checkpoints"
        self.state_file = self.path / "state.npz"
        self.csv_file = self.path / "metrics.csv"
        self.json_lines_file = self.path / "metrics.jsonl"
        self.tensorboard_folder = self.path / "tensorboard"

    @contextlib.contextmanager
    def locked(self):
        """Makes the folder and holds it for this process; a second trainer in one folder would mix two runs.

        Systems without POSIX file locks (Windows) don't hold it.

        Raises:
            OSError: the folder can't be made or written, or another process holds it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"run folder: {self.path} is a file")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / ".lock", "w")  # noqa: SIM115
        except OSError as error:
            raise OSError(f"run folder: {self.path} cannot be written: {error.strerror}") from None
        with lock:
            try:
                _lock(lock)
            except BlockingIOError:
                raise OSError(f"run folder: another process is training in {self.path}") from None
            # The lock goes with the process, however that ends.
            yield self

    def check_config(self, config):
        """Refuses to mix this configuration with the run that is already in the folder.

        Raises:
            ValueError: there is a run of another configuration, or something that is no run.
        """
        if not self.config_file.exists():
            others = [name for name in os.listdir(self.path) if name != ".lock"] if self.path.exists() else []
            if others:
                raise ValueError(
                    f"run folder: {self.path} holds {sorted(others)[0]} but no run; choose a new or an empty folder"
                )
            return
        before, now = flat_config(load_config(self.config_file)), flat_config(config)
        changed = [
            f"{key} was {before.get(key)}, is {now.get(key)}"
            for key in sorted(before | now)
            if before.get(key) != now.get(key) and not key.startswith(_MAY_DIFFER)
        ]
        if changed:
            raise ValueError(
                f"run folder: {self.path} holds a run of another configuration ({'; '.join(changed)}); "
                "continue it with its own, or choose another folder"
            )

    def check_space(self, needed_bytes):
        """Refuses to start a run whose checkpoints can't fit.

        Raises:
            OSError: not enough free space.
        """
        free = shutil.disk_usage(self.path).free
        if free < needed_bytes:
            raise OSError(
                f"run folder: checkpoints need about {needed_bytes / 1e9:.2f} GB, "
                f"{free / 1e9:.2f} GB are free at {self.path}"
            )

    def write_facts(self, config, info, devices):
        """Writes configuration, classes, and one more entry about the software and machine."""
        with atomic_file(self.config_file) as temporary:
            temporary.write_text(dump_config(config), encoding="utf-8")
        with atomic_file(self.dataset_file) as temporary:
            temporary.write_text(json.dumps(info.to_dict(), indent=1), encoding="utf-8")
        starts = json.loads(self.environment_file.read_text()) if self.environment_file.exists() else []
        starts.append(_environment(devices))
        with atomic_file(self.environment_file) as temporary:
            temporary.write_text(json.dumps(starts, indent=1), encoding="utf-8")

    def read_info(self):
        """`DatasetInfo` of the run, or None if the folder has none."""
        if not self.dataset_file.is_file():
            return None
        return DatasetInfo.from_dict(json.loads(self.dataset_file.read_text(encoding="utf-8")))

    def read_config(self):
        """`Config` of the run, or None if the folder has none."""
        return load_config(self.config_file) if self.config_file.is_file() else None


def _lock(file):
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _environment(devices):
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git_revision": _git_revision(),
        "psanet_tf": psanet_tf.__version__,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.platform(),
        "devices": devices,
    }


def _git_revision():
    """Commit of the package's working copy, with "+changes" if it differs from it; None outside of git."""
    folder = Path(psanet_tf.__file__).parent

    def git(*arguments):
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    try:
        # An installed package may lie inside some other project's working copy.
        if not git("ls-files", "__init__.py"):
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
