"""TensorFlow Serving's REST API, health, metrics and the browser page, on aiohttp."""

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Executor
from urllib.parse import unquote

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import ServingError, invalid_argument
from psanet_tf.runtimes.saved_model import DEFAULT_SIGNATURE
from psanet_tf.serving.server import messages, page_files, rest_tensors
from psanet_tf.serving.server.access import BearerToken, BrowserCheck
from psanet_tf.serving.server.connections import HttpConnections, Uploads
from psanet_tf.serving.server.event_loop import off_loop
from psanet_tf.serving.server.inference import Inference, ModelSpec
from psanet_tf.serving.server.json_documents import parse_json
from psanet_tf.serving.server.monitoring import CONTENT_TYPE, Monitoring, http_logger
from psanet_tf.serving.server.rest_answers import write_outputs

with needs_extra("serving", "the model server"):
    import orjson
    from aiohttp import web

logger = logging.getLogger(__name__)

_MODEL = r"(?i:/v1/models)/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION = re.compile(rf"{_MODEL}:(?P<method>(?i:classify|regress|predict))")
_STATUS = re.compile(rf"{_MODEL}(?P<metadata>/metadata)?")
_API = re.compile(r"(?i)/v1/.*")
_LARGEST_VERSION = 2**63 - 1
_METRICS = "/monitoring/prometheus/metrics"
_READY, _ALIVE = "/health", "/health/live"
_IDLE_SECONDS = 75.0  # longer than proxies keep a connection for, which is often a minute
_OLDEST_SECONDS = 3600.0


class BodyTooLargeError(ServingError):
    """A request's body is larger than this server takes: RESOURCE_EXHAUSTED, and in HTTP a status of its own."""

    http_status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(
            "RESOURCE_EXHAUSTED", f"the request's body is larger than {limit} bytes, the limit of this server"
        )


class RestServer:
    """Answers REST requests in the event loop that calls `start`; the work is done in `executor`'s threads.

    Args:
        inference: `Inference`.
        uploads: `Uploads`.
        monitoring: `Monitoring`.
        executor: `concurrent.futures.Executor` for parsing and formatting.
        max_request_bytes: of a request's body; larger ones get 413.
        is_ready: tells whether a version takes requests.
        browser_check: `BrowserCheck`.
        token: wanted for everything but health and the page's files.
        cors: let pages of other origins call the API.
        path_prefix: of all paths, such as "/psanet", or "".
    """

    def __init__(
        self,
        inference: Inference,
        uploads: Uploads,
        monitoring: Monitoring,
        executor: Executor,
        max_request_bytes: int,
        is_ready: Callable[[], bool],
        browser_check: BrowserCheck,
        token: BearerToken | None = None,
        cors: bool = False,
        path_prefix: str = "",
    ) -> None:
        self._inference = inference
        self._uploads = uploads
        self._monitoring = monitoring
        self._executor = executor
        self._max_request_bytes = max_request_bytes
        self._is_ready = is_ready
        self._browser_check = browser_check
        self._token = token
        self._prefix = path_prefix
        self._headers = {"X-Content-Type-Options": "nosniff"}
        if cors:
            self._headers |= {
                "Access-Control-Allow-Origin": "*",
                "Access-Control-Allow-Methods": "POST, GET",
                "Access-Control-Allow-Headers": "Content-Type" if token is None else "Content-Type, Authorization",
            }
        self._cors = cors
        self._stopping = False

    async def start(self, host: str, port: int, max_connections: int, tls: ssl.SSLContext | None = None) -> int:
        """Listens, and returns the port (chosen by the system for port 0).

        Args:
            host, port: where.
            max_connections: a further one makes the longest idle one give way.
            tls: for HTTPS.

        Raises:
            OSError: the address cannot be had.
        """
        application = web.Application(client_max_size=self._max_request_bytes)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            application,
            logger=http_logger,
            access_log=None,
            handler_cancellation=True,  # of a sender who hangs up
            keepalive_timeout=_IDLE_SECONDS,  # also for a head that does not arrive
            shutdown_timeout=0.1,  # `stop` has waited before
        )
        await self._runner.setup()
        self._connections = HttpConnections(self._runner.server, max_connections, _OLDEST_SECONDS)
        self._listener = await asyncio.get_running_loop().create_server(
            self._connections, host, port, ssl=tls, ssl_handshake_timeout=10.0 if tls else None
        )
        for listening in self._listener.sockets:
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # a receiver that takes nothing of its answer for so long
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * _IDLE_SECONDS))
        return self._listener.sockets[0].getsockname()[1]

    async def stop(self, seconds: float) -> None:
        """Takes no more requests, and waits `seconds` at most for those under way; then they are cancelled."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        self._stopping = True
        self._listener.close()
        while self._runner.server.connections and loop.time() < end:
            self._connections.close_idle()
            await asyncio.sleep(0.01)
        await self._runner.cleanup()

    async def _handle(self, request):
        with self._connections.handled(request.protocol):
            response = await self._respond(request)
        if self._stopping or self._connections.is_old(request.protocol):
            response.force_close()
        return response

    async def _respond(self, request):
        method, answer = self._route(request)
        try:
            with self._monitoring.request("REST", method, request.remote):
                if method != "health":
                    self._browser_check.check(request.headers)
                if self._token is not None and method not in ("health", "page", "preflight"):
                    self._token.check(request.headers.get("Authorization"))
                return await answer()
        except ServingError as error:
            response = self._json({"error": error.message}, error.http_status)
            if error.code == "UNAUTHENTICATED":
                response.headers["WWW-Authenticate"] = "Bearer"
            return response
        except ConnectionError:
            return web.Response(status=499)  # nobody will read it
        except Exception as error:
            logger.exception("%s %s failed", request.method, request.path)
            return self._json({"error": f"{type(error).__name__}: {error}"}, 500)

    def _route(self, request):
        """(what a request asks for, a coroutine function that answers it)"""
        path = request.rel_url.raw_path
        if self._prefix:
            if path == self._prefix:
                return "page", self._answer_with(self._redirect)
            if not path.startswith(f"{self._prefix}/"):
                return "other", self._refuse(ServingError("NOT_FOUND", f"nothing is outside {self._prefix}/"))
            path = path.removeprefix(self._prefix)
        if request.method == "OPTIONS" and self._cors:
            # Browsers send no token with it.
            return "preflight", self._answer_with(lambda: web.Response(headers=self._headers))
        if request.method == "POST" and (match := _PREDICTION.fullmatch(path)):
            return "predict", lambda: self._predict(request, match)
        if request.method in ("GET", "HEAD"):
            if path in (_READY, _ALIVE):
                return "health", self._answer_with(lambda: self._health(path))
            if path == _METRICS:
                return "metrics", self._answer_with(self._metrics)
            if path == "/" and "text/html" not in request.headers.get("Accept", ""):
                return "health", self._answer_with(lambda: self._json({"status": "alive"}))  # what KServe's client asks
            if path in page_files.NAMES:
                return "page", self._answer_with(lambda: self._page(path))
            if match := _STATUS.fullmatch(path):
                return ("metadata" if match["metadata"] else "status"), self._answer_with(lambda: self._model(match))
            if path.rstrip("/").lower() == "/v1/models":
                return "other", self._refuse(invalid_argument("Missing model name in request."))
        if _API.fullmatch(path):
            return "other", self._refuse(invalid_argument(f"Malformed request: {request.method} {path}"))
        return "other", self._refuse(ServingError("NOT_FOUND", f"nothing is at {path}"))

    def _answer_with(self, function):
        async def answer():
            return function()

        return answer

    def _refuse(self, error):
        async def answer():
            raise error

        return answer

    async def _predict(self, request, match):
        method = match["method"].lower()
        if method != "predict":
            raise invalid_argument(f"this server answers :predict only, not :{method}")
        spec = _model_spec(match)
        body = await self._body(request)
        with (
            self._connections.at_work(request.protocol),
            self._inference.admitted(),
            self._inference.use(spec) as servable,
        ):
            signature, inputs, request_format = await off_loop(self._executor, len(body), _read, servable, body)
            outputs = await self._inference.answer(servable, signature, inputs)
            size = sum(array.nbytes for array in outputs.values())
            answer = await off_loop(self._executor, size, write_outputs, outputs, request_format)
        return web.Response(body=answer, content_type="application/json", headers=self._headers)

    async def _body(self, request):
        limit = self._max_request_bytes
        if request.content_length is not None and request.content_length > limit:
            raise BodyTooLargeError(limit)
        try:
            return await self._uploads.read(request.read())
        except web.HTTPRequestEntityTooLarge:
            raise BodyTooLargeError(limit) from None
        except web.RequestPayloadError as error:
            raise invalid_argument(f"the request's body is broken: {error}") from None

    def _model(self, match):
        spec = _model_spec(match)
        if match["metadata"]:
            with self._inference.use(spec) as servable:
                return self._json(messages.metadata_document(spec.name, servable))
        # A label chooses nothing here, as in TensorFlow Serving.
        statuses = self._inference.versions.status(spec.name, spec.version)
        return self._json(messages.to_document(messages.status_response(statuses)))

    def _health(self, path):
        if path == _READY and not self._is_ready():
            return self._json({"status": "NOT_SERVING"}, 503)
        return self._json({"status": "SERVING" if path == _READY else "alive"})

    def _metrics(self):
        return web.Response(body=self._monitoring.exposition(), headers={**self._headers, "Content-Type": CONTENT_TYPE})

    def _page(self, path):
        text, content_type = page_files.read(path, self._inference.versions.name)
        headers = {**self._headers, **page_files.HEADERS}
        return web.Response(text=text, content_type=content_type, charset="utf-8", headers=headers)

    def _redirect(self):
        return web.Response(status=308, headers={**self._headers, "Location": f"{self._prefix}/"})

    def _json(self, document, status=200):
        body = orjson.dumps(document)
        return web.Response(body=body, status=status, content_type="application/json", headers=self._headers)


def _read(servable, body):
    document = parse_json(body)
    name = rest_tensors.signature_name(document) or DEFAULT_SIGNATURE
    if name not in servable.signatures:
        known = ", ".join(sorted(servable.signatures))
        raise invalid_argument(f'Serving signature name: "{name}" not found in signature def; it has {known}')
    signature = servable.signatures[name]
    return signature, *rest_tensors.read_inputs(document, signature)


def _model_spec(match):
    version = None
    if match["version"] is not None:
        digits = match["version"].lstrip("0") or "0"
        if len(digits) > len(str(_LARGEST_VERSION)) or int(digits) > _LARGEST_VERSION:
            raise invalid_argument(f"Failed to convert version: {match['version'][:80]} to numeric.")
        version = int(digits)
    label = None if match["label"] is None else unquote(match["label"])
    return ModelSpec(unquote(match["name"]), version, label)
