"""One version of a model in the server, kept loaded while anybody uses it."""

import os
import threading
from collections.abc import Callable

from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.saved_model import SavedModelSession


class Servable(SavedModelSession):
    """A loaded version. Thread-safe; closed when `retire` was called and the last user has left.

    Args:
        path: folder with `saved_model.pb`.
        version: its number.

    Raises:
        ServingError: the folder holds no model that this TensorFlow can load.
    """

    def __init__(self, path: str | os.PathLike, version: int) -> None:
        super().__init__(path)
        self.version = version
        self._users = 0
        self._retired = False
        self._on_closed = None
        self._users_lock = threading.Lock()

    def acquire(self) -> None:
        """Keeps the version loaded until `release`."""
        with self._users_lock:
            if self._retired and not self._users:
                raise ServingError("UNAVAILABLE", f"version {self.version} has been unloaded")
            self._users += 1

    def release(self) -> None:
        with self._users_lock:
            self._users -= 1
            last = self._retired and not self._users
        if last:
            self._close()

    def retire(self, on_closed: Callable[[], object] | None = None) -> None:
        """Unloads the version once nobody uses it any more; then calls `on_closed`."""
        with self._users_lock:
            self._retired = True
            self._on_closed = on_closed
            idle = not self._users
        if idle:
            self._close()

    def _close(self):
        self.close()
        if self._on_closed is not None:
            self._on_closed()
