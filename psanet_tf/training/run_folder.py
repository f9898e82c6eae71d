"""The folder of one training run as its writer sees it: whether it can be written, by whom, and its records."""

import contextlib
import datetime
import errno
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psanet_tf
from psanet_tf.config import Config, dump_config
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.fingerprint import Fingerprint
from psanet_tf.files import NoSpaceError, atomic_file, readable_size, remove_unfinished
from psanet_tf.training.schedule import Schedule
from psanet_tf.training.state import previous_state
from psanet_tf.weights.run_folder import RunFolder

_PACKAGES = ("tensorflow", "keras", "numpy")


class TrainingFolder(RunFolder):
    """A run folder that a training writes."""

    @contextlib.contextmanager
    def locked(self) -> Iterator["TrainingFolder"]:
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

    def others(self) -> list[str]:
        """Names of what is in the folder besides hidden files and what a run notes before it begins, sorted."""
        records = {self.dataset_file, self.environment_file, self.schedule_file, self.hashes_file.parent}
        records |= {self.class_weights_file}
        there = set(self.path.iterdir()) if self.path.exists() else set()
        return sorted(path.name for path in there - records if not path.name.startswith("."))

    def trained_files(self) -> list[Path]:
        """Paths of all checkpoints, states and metrics that are there."""
        single = (self.last_file, self.best_file, self.state_file, previous_state(self.state_file), self.csv_file)
        return [file for file in single if file.is_file()] + sorted(self.checkpoint_folder.glob("epoch_*.keras"))

    def remove_unfinished(self) -> None:
        """Removes what a killed process left half-written; only for who holds the folder."""
        for file in (
            *(self.last_file, self.best_file, self.state_file, self.csv_file, self.json_lines_file, self.config_file),
            *(self.dataset_file, self.environment_file, self.schedule_file, self.hashes_file, self.class_weights_file),
            *(self.training_data_file, self.validation_data_file, self.checkpoint_folder / "epoch_*.keras"),
        ):
            remove_unfinished(file)

    def check_space(self, weights_bytes: int, state_bytes: int, keep_last: int) -> None:
        """Refuses to start or go on with a run whose checkpoints can't fit.

        Args:
            weights_bytes: size of a checkpoint.
            state_bytes: size of a state.
            keep_last: checkpoints of this many last epochs will stay.

        Raises:
            NoSpaceError: not enough free space.
        """
        # The last and the best checkpoint, two states, and one of each that is being written.
        needed = (3 + keep_last) * weights_bytes + 3 * state_bytes
        needed -= sum(file.stat().st_size for file in self.trained_files())
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise NoSpaceError(
                errno.ENOSPC,
                f"run folder: checkpoints and states of this run need about {readable_size(needed)} more, "
                f"{readable_size(free)} are free at {self.path}; make room, choose a folder on another disk, or lower "
                "train.keep_last",
            )

    def starts(self) -> list[dict[str, Any]]:
        """The entries of environment.json, one per start of the run.

        Raises:
            ValueError: the file is damaged.
        """
        if not self.environment_file.exists():
            return []
        try:
            return list(json.loads(self.environment_file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.environment_file} is damaged ({error}); it tells of the earlier starts of the run, which goes "
                "on without it: move it away"
            ) from None

    def write_facts(
        self,
        config: Config,
        info: DatasetInfo,
        start: dict[str, Any],
        schedule: Schedule,
        fingerprints: Mapping[Path, Fingerprint],
    ) -> None:
        """Writes what the run is; the configuration last, which makes the folder a run's.

        Args:
            config: Config.
            info: DatasetInfo.
            start: entry about this start, see `environment`.
            schedule: Schedule.
            fingerprints: {file: Fingerprint}.
        """
        for file, fingerprint in fingerprints.items():
            fingerprint.save(file)
        schedule.save(self.schedule_file)
        with atomic_file(self.dataset_file) as temporary:
            temporary.write_text(json.dumps(info.to_dict(), indent=1), encoding="utf-8")
        starts = [*self.starts(), start]
        with atomic_file(self.environment_file) as temporary:
            temporary.write_text(json.dumps(starts, indent=1), encoding="utf-8")
        with atomic_file(self.config_file) as temporary:
            temporary.write_text(dump_config(config), encoding="utf-8")


def _lock(file):
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def environment(devices: list[str], **facts: Any) -> dict[str, Any]:
    """What environment.json tells about one start of a run: software, machine, devices, and further facts."""
    return {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git_revision": _git_revision(),
        "psanet_tf": psanet_tf.__version__,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.platform(),
        "devices": devices,
        **facts,
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
