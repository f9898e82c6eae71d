"""When a version that could not be loaded is tried again."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

# As TensorFlow Serving's --max_num_load_retries and --load_retry_interval_micros.
RETRIES = 5
RETRY_SECONDS = 60.0


@dataclass
class _Failure:
    files: tuple
    attempts: int
    next_attempt: float


class LoadRetries:
    """Remembers failures. A version is tried again when its files have changed and then rested for a poll (it was
    still being copied), or, unchanged, `RETRIES` times in a row, `RETRY_SECONDS` apart (memory, a network's disk).
    """

    def __init__(self) -> None:
        self._seen = {}  # version -> its files at the last look
        self._failures = {}

    def may_load(self, version: int, folder: Path) -> bool:
        """Whether to try `version`, whose files are in `folder`; to be asked once per poll, right before the load."""
        before, files = self._seen.get(version), _files(folder)
        self._seen[version] = files
        failure = self._failures.get(version)
        if failure is None:
            return True
        if files != failure.files:
            return files == before
        return failure.attempts <= RETRIES and time.monotonic() >= failure.next_attempt

    def failed(self, version: int) -> None:
        """Notes that the files could not be loaded: those that `may_load` saw, since others may have come meanwhile."""
        files = self._seen[version]
        before = self._failures.get(version)
        attempts = before.attempts + 1 if before is not None and before.files == files else 1
        self._failures[version] = _Failure(files, attempts, time.monotonic() + RETRY_SECONDS)

    def loaded(self, version: int) -> None:
        """Forgets what was noted of a version."""
        self._failures.pop(version, None)
        self._seen.pop(version, None)


def _files(folder):
    """What a change of any file below `folder` changes."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.stat(os.path.join(place, name))
            except OSError:
                continue  # removed in the meantime
            found.append((os.path.relpath(os.path.join(place, name), folder), status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))
