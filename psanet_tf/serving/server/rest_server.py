"""TensorFlow Serving's REST API, and the browser page, on aiohttp."""

import asyncio
import html
import logging
import re
import time
from concurrent.futures import Executor
from importlib import resources
from urllib.parse import quote, unquote

from google.protobuf import json_format

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import ServingError, invalid_argument
from psanet_tf.serving.server import rest_tensors
from psanet_tf.serving.server.grpc_server import metadata_response, status_response
from psanet_tf.serving.server.inference import Inference, ModelSpec

with needs_extra("serving", "the model server"):
    import orjson
    from aiohttp import web

logger = logging.getLogger(__name__)

_MODEL = r"(?i:/v1/models)/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION = re.compile(rf"{_MODEL}:(?P<method>(?i:classify|regress|predict))")
_STATUS = re.compile(rf"{_MODEL}(?P<metadata>/metadata)?")
_LARGEST_VERSION = 2**63 - 1
_PAGE = {"/": "index.html", "/page.js": "page.js", "/page.css": "page.css"}
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


class RestServer:
    """Answers REST requests in the event loop that calls `start`; the work is done in `executor`'s threads.

    Args:
        inference: `Inference`.
        executor: `concurrent.futures.Executor` for parsing and formatting.
        max_request_bytes: of a request's body; larger ones get 413.
        read_seconds: a body that takes longer to arrive gets 408.
        request_seconds: an answer that takes longer becomes 504.
        cors: let pages of other origins call the API.
    """

    def __init__(
        self,
        inference: Inference,
        executor: Executor,
        max_request_bytes: int,
        read_seconds: float = 30.0,
        request_seconds: float = 300.0,
        cors: bool = False,
    ) -> None:
        self._inference = inference
        self._executor = executor
        self._max_request_bytes = max_request_bytes
        self._read_seconds = read_seconds
        self._request_seconds = request_seconds
        self._headers = _CORS if cors else {}
        self._runner = None

    async def start(self, host: str, port: int) -> int:
        """Listens, and returns the port (chosen by the system for port 0)."""
        application = web.Application(client_max_size=self._max_request_bytes)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        return site.port

    async def stop(self) -> None:
        """Stops listening and waits for the answers under way."""
        await self._runner.cleanup()

    async def _handle(self, request):
        try:
            return await self._answer(request)
        except ServingError as error:
            return self._error(error.http_status, error.message)
        except web.HTTPRequestEntityTooLarge:
            limit = self._max_request_bytes
            return self._error(413, f"the request's body is larger than {limit} bytes, the limit of this server")
        except TimeoutError:
            return self._error(408, f"the request's body did not arrive within {self._read_seconds:g} seconds")
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            logger.exception("%s %s failed", request.method, request.path)
            return self._error(500, f"{type(error).__name__}: {error}")

    async def _answer(self, request):
        path = request.rel_url.raw_path
        if request.method == "OPTIONS" and self._headers:
            return web.Response(headers=self._headers)
        if request.method == "POST":
            match = _PREDICTION.fullmatch(path)
            if match:
                return await self._predict(request, match)
        if request.method in ("GET", "HEAD"):
            if path in _PAGE:
                return _page_file(_PAGE[path], self._inference.versions.name)
            match = _STATUS.fullmatch(path)
            if match:
                return await self._in_thread(self._model_status, match)
            if path.rstrip("/").lower() == "/v1/models":
                raise invalid_argument("Missing model name in request.")
        raise invalid_argument(f"Malformed request: {request.method} {path}")

    async def _predict(self, request, match):
        method = match["method"].lower()
        if method != "predict":
            raise invalid_argument(f"this server answers :predict only, not :{method}")
        if request.content_length is not None and request.content_length > self._max_request_bytes:
            raise web.HTTPRequestEntityTooLarge(self._max_request_bytes, request.content_length)
        spec = _model_spec(match)
        with self._inference.admitted():
            body = await asyncio.wait_for(request.read(), self._read_seconds)
            future, request_format = await self._in_thread(self._submit, spec, body)
            try:
                outputs = await asyncio.wait_for(asyncio.wrap_future(future), self._request_seconds)
            except TimeoutError:
                raise ServingError("DEADLINE_EXCEEDED", f"no answer within {self._request_seconds:g} seconds") from None
            answer = await self._in_thread(rest_tensors.write_outputs, outputs, request_format)
        return self._json(answer)

    def _submit(self, spec, body):
        document = rest_tensors.parse_json(body)
        with self._inference.use(spec) as servable:
            signature = servable.signature(rest_tensors.signature_name(document))
            inputs, request_format = rest_tensors.read_inputs(document, signature)
            deadline = time.monotonic() + self._request_seconds
            return self._inference.submit(servable, signature.name, inputs, deadline=deadline), request_format

    def _model_status(self, match):
        spec = _model_spec(match)
        if match["metadata"]:
            with self._inference.use(spec) as servable:
                message = metadata_response(spec.name, servable)
        else:
            versions = self._inference.versions
            message = status_response(versions.status(spec.name, spec.version, spec.label))
        text = json_format.MessageToJson(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return self._json(text.encode())

    async def _in_thread(self, function, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def _json(self, body, status=200):
        return web.Response(body=body, status=status, content_type="application/json", headers=self._headers)

    def _error(self, status, message):
        return self._json(orjson.dumps({"error": message}), status)


def _model_spec(match):
    version = None
    if match["version"] is not None:
        version = int(match["version"])
        if version > _LARGEST_VERSION:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
    label = None if match["label"] is None else unquote(match["label"])
    return ModelSpec(unquote(match["name"]), version, label)


def _page_file(name, model):
    content = (resources.files("psanet_tf.serving.server") / "page" / name).read_text(encoding="utf-8")
    content = content.replace('data-model=""', f'data-model="{html.escape(quote(model))}"')
    kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
    return web.Response(text=content, content_type=kinds[name.rsplit(".")[-1]], charset="utf-8")
