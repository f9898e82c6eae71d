"""The embedded model server: TensorFlow Serving's two protocols in one Python process."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from typing_extensions import Self

from psanet_tf.runtimes.warmup import replay
from psanet_tf.serving.server.batching import Batcher
from psanet_tf.serving.server.grpc_server import start_grpc_server
from psanet_tf.serving.server.inference import Inference
from psanet_tf.serving.server.rest_server import RestServer
from psanet_tf.serving.server.versions import VersionManager, VersionStatus

MAX_REQUEST_BYTES = 32 * 2**20
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
# Beyond the requests under way: threads that refuse what is too much, and answer status requests.
_SPARE_THREADS = 8


class Server:
    """Serves the versions of one model over REST and gRPC until it is stopped; a context manager.

    For trying, tests and machines without Docker. Production belongs to TensorFlow Serving's own
    ``tensorflow_model_server``, which answers the same requests.

    Args:
        model_path: folder of the model, with one folder per version.
        name: of the model in requests; default: the folder's name.
        host: address to listen on.
        rest_port, grpc_port: 0 lets the system choose; None leaves the protocol out.
        latest_versions: how many of the newest versions are kept loaded.
        labels: label -> version, e.g. ``{"stable": 3}``; those versions stay loaded too.
        poll_seconds: how often the folder is looked at.
        max_batch_size: most images of one call that joins requests.
        max_concurrent_requests: more at the same time are refused as UNAVAILABLE.
        max_request_bytes: larger requests are refused.
        read_seconds: how long a REST request's body may take to arrive.
        cors: let browser pages of other origins use the REST API.
        on_change: called with every new `VersionStatus`.

    Attributes:
        rest_port, grpc_port: those in use, once started.
        versions: the `VersionManager`.

    Raises:
        ValueError: an argument out of its range.
        NotADirectoryError: there is no such folder.

    Example:
        >>> with Server("models/psanet", rest_port=0, grpc_port=0) as server:
        ...     client = Client(f"grpc://127.0.0.1:{server.grpc_port}/psanet")
    """

    def __init__(
        self,
        model_path: str | os.PathLike,
        name: str | None = None,
        host: str = "127.0.0.1",
        rest_port: int | None = 8501,
        grpc_port: int | None = 8500,
        latest_versions: int = 1,
        labels: Mapping[str, int] | None = None,
        poll_seconds: float = 1.0,
        max_batch_size: int = 4,
        max_concurrent_requests: int = 64,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        read_seconds: float = 30.0,
        cors: bool = False,
        on_change: Callable[[VersionStatus], object] | None = None,
    ) -> None:
        model_path = Path(model_path)
        if not model_path.is_dir():
            raise NotADirectoryError(f"{model_path} is no folder; it should hold the versions 1, 2, ... of a model")
        if (model_path / "saved_model.pb").is_file():
            raise ValueError(f"{model_path} is one version of a model; serve the folder above it, {model_path.parent}")
        if rest_port is None and grpc_port is None:
            raise ValueError("rest_port and grpc_port are both None: nobody could ask this server anything")
        if not poll_seconds > 0:
            raise ValueError(f"poll_seconds must be positive, got {poll_seconds}")
        self.versions = VersionManager(
            name or model_path.resolve().name, model_path, latest_versions, labels, warm_up=replay, on_change=on_change
        )
        self._batcher = Batcher(max_batch_size, max_waiting=max_concurrent_requests)
        self.inference = Inference(self.versions, self._batcher, max_concurrent_requests)
        self.host = host
        self.rest_port = rest_port
        self.grpc_port = grpc_port
        self._poll_seconds = poll_seconds
        self._max_request_bytes = max_request_bytes
        self._rest_options = {"read_seconds": read_seconds, "cors": cors}
        self._threads = max_concurrent_requests + _SPARE_THREADS
        self._grpc = None
        self._loop = None

    def start(self) -> Self:
        """Loads the newest version, then listens.

        Raises:
            OSError: a port is taken.
        """
        self.versions.poll()
        self.versions.start(self._poll_seconds)
        try:
            if self.grpc_port is not None:
                self._grpc_executor = ThreadPoolExecutor(self._threads, thread_name_prefix="grpc")
                self._grpc, self.grpc_port = start_grpc_server(
                    self.inference, self._grpc_executor, self.host, self.grpc_port, self._max_request_bytes
                )
            if self.rest_port is not None:
                self._start_rest()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stops listening, answers what is under way, unloads the model."""
        if self._grpc is not None:
            self._grpc.stop(_STOP_SECONDS).wait()
            self._grpc_executor.shutdown()
            self._grpc = None
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._rest.stop(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._rest_thread.join()
            self._rest_executor.shutdown()
            self._loop = None
        self._batcher.stop()
        self.versions.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _start_rest(self):
        self._rest_executor = ThreadPoolExecutor(_SPARE_THREADS, thread_name_prefix="rest")
        self._rest = RestServer(self.inference, self._rest_executor, self._max_request_bytes, **self._rest_options)
        loop = asyncio.new_event_loop()
        self._rest_thread = threading.Thread(target=_run_loop, args=(loop,), name="rest", daemon=True)
        self._rest_thread.start()
        self._loop = loop
        starting = asyncio.run_coroutine_threadsafe(self._rest.start(self.host, self.rest_port), loop)
        self.rest_port = starting.result(_START_SECONDS)


def _run_loop(loop):
    asyncio.set_event_loop(loop)
    with contextlib.closing(loop):
        loop.run_forever()
