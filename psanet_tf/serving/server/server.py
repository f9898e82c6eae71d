"""The embedded model server: TensorFlow Serving's two protocols in one Python process."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from typing_extensions import Self

from psanet_tf.runtimes.warmup import replay
from psanet_tf.serving.addresses import check_address
from psanet_tf.serving.server.access import BearerToken, BrowserCheck, tls_context
from psanet_tf.serving.server.connections import Uploads
from psanet_tf.serving.server.event_loop import serving_loop
from psanet_tf.serving.server.grpc_server import GrpcServer
from psanet_tf.serving.server.inference import Inference
from psanet_tf.serving.server.monitoring import Monitoring
from psanet_tf.serving.server.request_queue import RequestQueue
from psanet_tf.serving.server.rest_server import RestServer
from psanet_tf.serving.server.versions import VersionManager, VersionStatus

MAX_REQUEST_BYTES = 32 * 2**20
_START_SECONDS = 60.0
_CANCEL_SECONDS = 5.0
# Threads that parse requests and write answers, beside the model's.
_FORMAT_THREADS = 4
_PREFIX = re.compile(r"(/[\w.~-]+)*", re.ASCII)


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
        max_concurrent_requests: more at the same time are refused as UNAVAILABLE; as many bodies may be arriving.
        max_request_bytes: larger requests are refused.
        max_connections: of each protocol.
        read_seconds: how long a request's body may take to arrive.
        drain_seconds: how long `stop` waits for the requests under way.
        certificate, key: PEM files; with them both protocols speak TLS only.
        token_file: holds the token that requests must have, in ``authorization: Bearer TOKEN``.
        allowed_hosts: names under which a proxy reaches this server.
        cors: let browser pages of other origins use the REST API.
        path_prefix: of all paths of the REST API and the page, e.g. ``"/psanet"``.
        on_change: called with every new `VersionStatus`.

    Attributes:
        rest_port, grpc_port: those in use, once started.
        versions: the `VersionManager`.

    Raises:
        ValueError: an argument out of its range, or files that do not hold what they should.
        NotADirectoryError: there is no such folder.
        OSError: a file that cannot be read.

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
        max_concurrent_requests: int = 64,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        max_connections: int = 512,
        read_seconds: float = 30.0,
        drain_seconds: float = 30.0,
        certificate: str | os.PathLike | None = None,
        key: str | os.PathLike | None = None,
        token_file: str | os.PathLike | None = None,
        allowed_hosts: Sequence[str] = (),
        cors: bool = False,
        path_prefix: str = "",
        on_change: Callable[[VersionStatus], object] | None = None,
    ) -> None:
        model_path = Path(model_path)
        if not model_path.is_dir():
            raise NotADirectoryError(f"{model_path} is no folder; it should hold the versions 1, 2, ... of a model")
        if (model_path / "saved_model.pb").is_file():
            raise ValueError(f"{model_path} is one version of a model; serve the folder above it, {model_path.parent}")
        if rest_port is None and grpc_port is None:
            raise ValueError("rest_port and grpc_port are both None: nobody could ask this server anything")
        if rest_port and rest_port == grpc_port:
            raise ValueError(f"rest_port and grpc_port are both {rest_port}: each protocol needs its own")
        for argument, value in (
            ("poll_seconds", poll_seconds),
            ("read_seconds", read_seconds),
            ("max_concurrent_requests", max_concurrent_requests),
            ("max_request_bytes", max_request_bytes),
            ("max_connections", max_connections),
        ):
            if not value > 0:
                raise ValueError(f"{argument} must be positive, got {value}")
        if not drain_seconds >= 0:
            raise ValueError(f"drain_seconds must not be negative, got {drain_seconds}")
        if (certificate is None) != (key is None):
            raise ValueError("certificate and key belong together: give both or neither")
        if not _PREFIX.fullmatch(path_prefix):
            raise ValueError(f"path_prefix must look like /psanet, without a slash at the end, got {path_prefix!r}")
        self._tls = None if certificate is None else (Path(certificate), Path(key))
        self._tls_context = None if certificate is None else tls_context(certificate, key)
        token = None if token_file is None else BearerToken(token_file)
        self.versions = VersionManager(
            name or model_path.resolve().name,
            model_path,
            latest_versions,
            labels,
            warm_up=replay,
            on_change=self._changed,
        )
        self.host = host
        self.rest_port = rest_port
        self.grpc_port = grpc_port
        self._on_change = on_change
        self._poll_seconds = poll_seconds
        self._drain_seconds = drain_seconds
        self._max_connections = max_connections
        self._executor = ThreadPoolExecutor(_FORMAT_THREADS, thread_name_prefix="format")
        self._queue = RequestQueue()
        self.inference = Inference(self.versions, self._queue, max_concurrent_requests)
        uploads = Uploads(max_concurrent_requests, read_seconds)
        monitoring = Monitoring(self._queue.__len__, lambda: self.versions.available)
        common = (self.inference, uploads, monitoring, self._executor, max_request_bytes)
        browser_check = BrowserCheck(host, allowed_hosts, cors)
        self._rest = RestServer(*common, self._is_ready, browser_check, token, cors, path_prefix)
        self._grpc = GrpcServer(*common, token)
        self._listening = []  # those of the two that were started
        self._draining = False
        self._loop = serving_loop()

    def start(self) -> Self:
        """Tries the ports, loads the newest version, then listens.

        Raises:
            OSError: a port is taken.
        """
        try:
            for port in (self.rest_port, self.grpc_port):
                if port is not None:
                    check_address(self.host, port)
            self.versions.poll()
            self.versions.start(self._poll_seconds)
            self._in_loop(self._listen()).result(_START_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stops listening, answers what is under way, for `drain_seconds` at most, and unloads the model."""
        end = time.monotonic() + self._drain_seconds
        self._draining = True
        self._in_loop(self._drain()).result()
        # What still runs belongs to a request that has been cancelled.
        if not self._queue.stop(max(0.1, end - time.monotonic())):
            self.versions.abort()
            self._queue.stop(_CANCEL_SECONDS)
        self.versions.stop()
        self._executor.shutdown(wait=False)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _in_loop(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _listen(self):
        if self.grpc_port is not None:
            self.grpc_port = await self._grpc.start(self.host, self.grpc_port, self._max_connections, self._tls)
            self._listening.append(self._grpc)
            await self._grpc.set_serving(self._is_ready())
        if self.rest_port is not None:
            self.rest_port = await self._rest.start(self.host, self.rest_port, self._max_connections, self._tls_context)
            self._listening.append(self._rest)

    async def _drain(self):
        listening, self._listening = self._listening, []
        if self._grpc in listening:
            await self._grpc.set_serving(False)
        await asyncio.gather(*(server.stop(self._drain_seconds) for server in listening))

    def _is_ready(self):
        return not self._draining and bool(self.versions.available)

    def _changed(self, status):
        if self._grpc in self._listening:
            self._in_loop(self._grpc.set_serving(self._is_ready()))
        if self._on_change is not None:
            self._on_change(status)
