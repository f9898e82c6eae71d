"""The versions of a model on disk, loaded and dropped while requests go on."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from psanet_tf.runtimes.errors import ServingError, invalid_argument
from psanet_tf.runtimes.model_folder import versions_on_disk
from psanet_tf.serving.server.servable import Servable


@dataclass(frozen=True)
class VersionStatus:
    """As in TensorFlow Serving's model status: state is LOADING, AVAILABLE, UNLOADING or END."""

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


class VersionManager:
    """Keeps the newest versions (and those with a label) of one model loaded.

    A new version is loaded and warmed up beside the old one and takes over in one step; the old one is
    unloaded when its last request has been answered. A version that cannot be loaded changes nothing.

    Args:
        name: of the model.
        base_path: folder with one folder per version.
        latest_versions: how many of the newest versions are kept loaded.
        labels: label -> version; those versions stay loaded too.
        warm_up: called with each new `Servable` before it takes requests.
        on_change: called with every new `VersionStatus`.
    """

    def __init__(
        self,
        name: str,
        base_path: str | os.PathLike,
        latest_versions: int = 1,
        labels: Mapping[str, int] | None = None,
        warm_up: Callable[[Servable], object] | None = None,
        on_change: Callable[[VersionStatus], object] | None = None,
    ) -> None:
        if latest_versions < 1:
            raise ValueError(f"latest_versions must be at least 1, got {latest_versions}")
        self.name = name
        self.base_path = Path(base_path)
        self._latest_versions = latest_versions
        self._labels = dict(labels or {})
        self._warm_up = warm_up
        self._on_change = on_change
        self._lock = threading.Lock()  # guards the three maps below
        self._poll_lock = threading.Lock()  # one poll at a time
        self._loaded = {}
        self._status = {}
        self._failed = {}  # version -> folder's modification time when loading failed
        self._stop = threading.Event()
        self._thread = None

    def poll(self) -> None:
        """Looks at the folder once: loads what is new, drops what is gone or superseded."""
        with self._poll_lock:
            on_disk = versions_on_disk(self.base_path)
            wanted = set(sorted(on_disk)[-self._latest_versions :]) | (set(self.labels.values()) & set(on_disk))
            for version in sorted(wanted, reverse=True):
                if version not in self._loaded:
                    self._load(version, on_disk[version])
            if wanted & set(self._loaded):
                for version in sorted(set(self._loaded) - self._wanted_after_failures(on_disk)):
                    self._unload(version)

    def start(self, poll_seconds: float) -> None:
        """Polls in a thread of its own until `stop`."""

        def run():
            while not self._stop.wait(poll_seconds):
                self.poll()

        self._thread = threading.Thread(target=run, name="version-poll", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the polling and unloads every version as soon as it is free."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._poll_lock:
            for version in list(self._loaded):
                self._unload(version)

    @property
    def labels(self) -> dict[str, int]:
        with self._lock:
            return dict(self._labels)

    def set_labels(self, labels: Mapping[str, int]) -> None:
        """Replaces the labels.

        Raises:
            ServingError: FAILED_PRECONDITION, a label for a version that is not loaded.
        """
        with self._lock:
            for label, version in labels.items():
                if version not in self._loaded:
                    raise ServingError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to {version} version of model {self.name} which is not currently "
                        f"available for inference (label {label})",
                    )
            self._labels = dict(labels)

    @contextlib.contextmanager
    def use(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """The `Servable` that answers a request, kept loaded for the length of the block.

        Args:
            name: of the model.
            version: number; default: the newest that is loaded.
            label: instead of a version.

        Raises:
            ServingError: NOT_FOUND or INVALID_ARGUMENT (unknown label).
        """
        servable = self._acquire(name, version, label)
        try:
            yield servable
        finally:
            servable.release()

    def status(self, name: str, version: int | None = None, label: str | None = None) -> list[VersionStatus]:
        """List of `VersionStatus`, newest first.

        Raises:
            ServingError: NOT_FOUND or INVALID_ARGUMENT.
        """
        if name != self.name:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {name}")
        if label is not None:
            version = self._version_of(label)
        with self._lock:
            known = dict(self._status)
        if version is not None and version not in known:
            raise ServingError("NOT_FOUND", f"Could not find version {version} of model {name}")
        if not known:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {name}")
        return [known[key] for key in sorted(known, reverse=True) if version in (None, key)]

    def wait_until_available(self, timeout: float) -> bool:
        """Whether a version takes requests, waiting up to `timeout` seconds for it."""
        end = time.monotonic() + timeout
        while not self._loaded:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def _acquire(self, name, version, label):
        if name == self.name and label is not None:
            version = self._version_of(label)
        with self._lock:
            if name == self.name and self._loaded:
                servable = self._loaded.get(max(self._loaded) if version is None else version)
                if servable is not None:
                    # Under the lock: a version in the map is not retired yet, so this cannot fail.
                    servable.acquire()
                    return servable
        wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise ServingError("NOT_FOUND", f"Servable not found for request: {wanted}")

    def _version_of(self, label):
        labels = self.labels
        if label not in labels:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return labels[label]

    def _wanted_after_failures(self, on_disk):
        """The newest versions that can be loaded: one that cannot must not push a good one out."""
        good = [version for version in sorted(on_disk) if version in self._loaded]
        return set(good[-self._latest_versions :]) | set(self.labels.values())

    def _load(self, version, folder):
        try:
            modified = (folder / "saved_model.pb").stat().st_mtime_ns
        except OSError:
            return  # removed since it was listed
        if self._failed.get(version) == modified:
            return
        self._set_status(VersionStatus(version, "LOADING"))
        try:
            servable = Servable(folder, version)
            if self._warm_up is not None:
                self._warm_up(servable)
        except Exception as error:
            self._failed[version] = modified
            code, message = getattr(error, "code", "UNKNOWN"), getattr(error, "message", str(error))
            self._set_status(VersionStatus(version, "END", code, message))
            return
        self._failed.pop(version, None)
        with self._lock:
            self._loaded[version] = servable
        self._set_status(VersionStatus(version, "AVAILABLE"))

    def _unload(self, version):
        with self._lock:
            servable = self._loaded.pop(version)
        self._set_status(VersionStatus(version, "UNLOADING"))
        servable.retire(on_closed=lambda: self._set_status(VersionStatus(version, "END")))

    def _set_status(self, status):
        with self._lock:
            self._status[status.version] = status
        if self._on_change is not None:
            self._on_change(status)
