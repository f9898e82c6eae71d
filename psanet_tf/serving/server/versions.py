"""The versions of a model on disk, loaded and dropped while requests go on."""

import contextlib
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from psanet_tf.runtimes.errors import ServingError, invalid_argument
from psanet_tf.runtimes.model_folder import versions_on_disk
from psanet_tf.serving.server.load_retries import LoadRetries
from psanet_tf.serving.server.servable import Servable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VersionStatus:
    """As in TensorFlow Serving's model status: state is LOADING, AVAILABLE, UNLOADING or END."""

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


@dataclass(frozen=True)
class VersionConfig:
    """Which versions are kept loaded.

    Attributes:
        latest: that many of the newest; None: all.
        specific: these instead.
        labels: label -> version; those versions stay loaded too.
    """

    latest: int | None = 1
    specific: tuple[int, ...] | None = None
    labels: Mapping[str, int] = field(default_factory=dict)


class VersionManager:
    """Keeps the newest versions that can be loaded (and those with a label) of one model loaded.

    A new version is loaded and warmed up beside the old one and takes over in one step; the old one is
    unloaded when its last request has been answered. In place of a version that cannot be loaded the next older one is.

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
        self._config = VersionConfig(latest_versions, labels=dict(labels or {}))
        self._warm_up = warm_up
        self._on_change = on_change
        self._lock = threading.Lock()  # guards the configuration and the three collections below
        self._poll_lock = threading.Lock()  # one poll at a time
        self._loaded = {}
        self._status = {}
        self._open = set()  # servables that are loaded, or not yet closed
        self._retries = LoadRetries()
        self._has_garbage = False
        self._stop = threading.Event()
        self._thread = None

    def poll(self) -> None:
        """Looks at the folder once: loads what is new, drops what is gone or superseded."""
        with self._poll_lock:
            with self._lock:
                config = self._config
            wanted = self._load_wanted(config, versions_on_disk(self.base_path))
            # Configured anew while versions were loaded: the next poll knows what is to go.
            if wanted and config is self._config:
                for version in sorted(set(self._loaded) - wanted):
                    self._unload(version)
            if self._has_garbage:
                self._has_garbage = False
                _collect_garbage()

    def start(self, poll_seconds: float) -> None:
        """Polls in a thread of its own until `stop`."""

        def run():
            while not self._stop.wait(poll_seconds):
                try:
                    self.poll()
                except Exception:
                    logger.exception("looking for versions in %s failed", self.base_path)

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
        _collect_garbage()
        gc.unfreeze()

    def abort(self) -> None:
        """Ends what still runs, with CANCELLED."""
        with self._lock:
            servables = list(self._open)
        for servable in servables:
            servable.close()

    def configure(self, config: VersionConfig) -> None:
        """Replaces the configuration; the next poll loads and drops accordingly.

        Raises:
            ServingError: FAILED_PRECONDITION, a label for a version that is not loaded.
        """
        with self._lock:
            for version in config.labels.values():
                if version not in self._loaded:
                    raise ServingError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {version} of model {self.name}, which is not currently "
                        "available for inference",
                    )
            self._config = config

    def is_base_path(self, path: str | os.PathLike) -> bool:
        """Whether `path` is the folder of this model."""
        try:
            return Path(path).resolve() == self.base_path.resolve()
        except (OSError, ValueError):
            return False

    @property
    def available(self) -> tuple[int, ...]:
        """The versions that take requests, newest first."""
        with self._lock:
            return tuple(sorted(self._loaded, reverse=True))

    @contextlib.contextmanager
    def use(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """The `Servable` that answers a request, kept loaded for the length of the block.

        Args:
            name: of the model.
            version: number; default: the newest that is loaded. So is 0, unless a version has that number: OpenVINO's
                client sends it where none is chosen.
            label: instead of a version.

        Raises:
            ServingError: NOT_FOUND or INVALID_ARGUMENT (unknown label).
        """
        servable = self._acquire(name, version, label)
        try:
            yield servable
        finally:
            servable.release()

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """List of `VersionStatus`, newest first; of all versions, or of one (0: see `use`).

        Raises:
            ServingError: NOT_FOUND.
        """
        with self._lock:
            known = dict(self._status) if name == self.name else {}
        if version == 0 and version not in known:
            version = None
        if version is not None and version not in known:
            raise ServingError("NOT_FOUND", f"Could not find version {version} of model {name}")
        if not known:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {name}")
        return [known[key] for key in sorted(known, reverse=True) if version in (None, key)]

    def wait_until_available(self, timeout: float) -> bool:
        """Whether a version takes requests, waiting up to `timeout` seconds for it."""
        end = time.monotonic() + timeout
        while not self.available:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def _acquire(self, name, version, label):
        with self._lock:
            if name == self.name:
                if label is not None:
                    if label not in self._config.labels:
                        raise invalid_argument(f"Unrecognized servable version label: {label}")
                    version = self._config.labels[label]
                newest = version is None or (version == 0 and version not in self._loaded)
                servable = self._loaded.get(max(self._loaded, default=None) if newest else version)
                if servable is not None:
                    # Under the lock: a version in the map is not retired yet, so this cannot fail.
                    servable.acquire()
                    return servable
        if label is not None and name != self.name:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise ServingError("NOT_FOUND", f"Servable not found for request: {wanted}")

    def _load_wanted(self, config, on_disk):
        """The versions that are to be loaded and are; loads those that are not."""
        wanted = set()
        for version in sorted(on_disk, reverse=True):
            if config.specific is not None:
                chosen = version in config.specific
            else:
                chosen = config.latest is None or len(wanted) < config.latest
            if chosen and self._is_or_gets_loaded(version, on_disk[version]):
                wanted.add(version)
        for version in sorted(set(config.labels.values()) - wanted, reverse=True):
            if version in on_disk and self._is_or_gets_loaded(version, on_disk[version]):
                wanted.add(version)
        return wanted

    def _is_or_gets_loaded(self, version, folder):
        if version in self._loaded:
            return True
        if not self._retries.may_load(version, folder):
            return False
        self._has_garbage = True
        self._set_status(VersionStatus(version, "LOADING"))
        servable = None
        try:
            servable = Servable(folder, version)
            if self._warm_up is not None:
                self._warm_up(servable)
        except Exception as error:
            if servable is not None:
                servable.close()
            self._retries.failed(version)
            if not isinstance(error, ServingError):
                error = ServingError("UNKNOWN", f"{type(error).__name__}: {error}")
            self._set_status(VersionStatus(version, "END", error.code, error.message))
            return False
        self._retries.loaded(version)
        with self._lock:
            self._loaded[version] = servable
            self._open.add(servable)
        self._set_status(VersionStatus(version, "AVAILABLE"))
        return True

    def _unload(self, version):
        with self._lock:
            servable = self._loaded.pop(version)
        self._set_status(VersionStatus(version, "UNLOADING"))
        servable.retire(on_closed=lambda: self._closed(servable))

    def _closed(self, servable):
        with self._lock:
            self._open.discard(servable)
        self._set_status(VersionStatus(servable.version, "END"))
        self._has_garbage = True

    def _set_status(self, status):
        with self._lock:
            self._status[status.version] = status
        if self._on_change is not None:
            self._on_change(status)


def _collect_garbage() -> None:
    """A graph is full of cycles: what is closed stays until a full collection. What is loaded then stays for long, and
    is not looked at again, which would hold all requests up for a tenth of a second each time.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
