"""TensorFlow Serving's PredictionService and ModelService, and gRPC's health service, on grpc.aio."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path

from google.protobuf.message import DecodeError

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import ServingError, invalid_argument
from psanet_tf.runtimes.protos import serving_apis, to_array, to_proto
from psanet_tf.serving.addresses import host_and_port
from psanet_tf.serving.server.access import BearerToken
from psanet_tf.serving.server.connections import Uploads
from psanet_tf.serving.server.event_loop import off_loop
from psanet_tf.serving.server.inference import LONGEST_SECONDS, Inference, check_names
from psanet_tf.serving.server.messages import (
    check_metadata_fields,
    metadata_response,
    model_spec,
    status_response,
    version_config,
)
from psanet_tf.serving.server.monitoring import Monitoring

with needs_extra("serving", "the model server"):
    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

logger = logging.getLogger(__name__)

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
_UNSUPPORTED = ("Classify", "Regress", "MultiInference")
_MESSAGE_OVERHEAD = 64 * 1024
# Of an error's text, which gRPC sends in a header of 8 KB in all, with up to three bytes per byte.
_LONGEST_DETAILS = 1000

Answer = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class GrpcServer:
    """Answers gRPC requests in the event loop that calls `start`; the work is done in `executor`'s threads.

    Args:
        inference: `Inference`.
        uploads: `Uploads`.
        monitoring: `Monitoring`.
        executor: `concurrent.futures.Executor` for parsing and formatting.
        max_request_bytes: larger messages are refused as RESOURCE_EXHAUSTED.
        token: wanted for everything but health.
    """

    def __init__(
        self,
        inference: Inference,
        uploads: Uploads,
        monitoring: Monitoring,
        executor: Executor,
        max_request_bytes: int,
        token: BearerToken | None = None,
    ) -> None:
        self._inference = inference
        self._uploads = uploads
        self._monitoring = monitoring
        self._executor = executor
        self._max_request_bytes = max_request_bytes
        self._token = token
        self._apis = serving_apis()

    async def start(self, host: str, port: int, max_connections: int, tls: tuple[Path, Path] | None = None) -> int:
        """Listens, and returns the port (chosen by the system for port 0).

        Args:
            host, port: where.
            max_connections: further ones are refused.
            tls: files of the certificate and its key.

        Raises:
            OSError: the address cannot be had.
        """
        options = [
            ("grpc.max_receive_message_length", self._max_request_bytes + _MESSAGE_OVERHEAD),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # two servers on one port would share its requests at random
            ("grpc.max_allowed_incoming_connections", max_connections),
            ("grpc.max_concurrent_streams", 128),
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.max_connection_idle_ms", 60_000),
            ("grpc.max_connection_age_ms", 3_600_000),
            ("grpc.max_connection_age_grace_ms", int(1000 * LONGEST_SECONDS)),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ]
        self._server = grpc.aio.server(handlers=[self._prediction_service(), self._model_service()], options=options)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self.set_serving(False)
        address = host_and_port(host, port)
        try:
            if tls is None:
                bound = self._server.add_insecure_port(address)
            else:
                certificate, key = (path.read_bytes() for path in tls)
                bound = self._server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None
        await self._server.start()
        return bound

    async def set_serving(self, serving: bool) -> None:
        """What the health service says: whether a version takes requests."""
        statuses = health_pb2.HealthCheckResponse
        for service in ("", PREDICTION, MODEL):
            await self._health.set(service, statuses.SERVING if serving else statuses.NOT_SERVING)

    async def stop(self, seconds: float) -> None:
        """Takes no more requests, and waits `seconds` at most for those under way; then they are cancelled."""
        await self._server.stop(seconds)

    def _prediction_service(self):
        return grpc.method_handlers_generic_handler(
            PREDICTION,
            {
                "Predict": self._method("predict", self._predict),
                "GetModelMetadata": self._method("metadata", self._metadata),
                **{name: self._method("other", _unsupported(name)) for name in _UNSUPPORTED},
            },
        )

    def _model_service(self):
        return grpc.method_handlers_generic_handler(
            MODEL,
            {
                "GetModelStatus": self._method("status", self._status),
                "HandleReloadConfigRequest": self._method("reload", self._reload),
            },
        )

    def _method(self, name, answer: Answer):
        async def handle(_, context):
            try:
                with self._monitoring.request("gRPC", name, context.peer()):
                    if self._token is not None:
                        self._token.check(dict(context.invocation_metadata()).get("authorization"))
                    body = await self._uploads.read(context.read())
                    if body is grpc.aio.EOF:
                        raise invalid_argument("the request has no message")
                    return await answer(body, context)
            except ServingError as error:
                await _abort(context, error.code, error.message)
            except Exception as error:
                logger.exception("%s failed", name)
                await _abort(context, "INTERNAL", f"{type(error).__name__}: {error}")

        # For a sender this is a call with one message, as it should be. Here, a call that may have several: then it is
        # known as soon as it begins, and its message can be waited for as long as seems right.
        return grpc.stream_unary_rpc_method_handler(handle)

    async def _predict(self, body, context):
        with self._inference.admitted():
            request = await self._parse(self._apis.predict_pb2.PredictRequest, body)
            spec = model_spec(request)
            with self._inference.use(spec) as servable:
                signature = servable.signature(request.model_spec.signature_name)
                check_names(signature, request.inputs)
                inputs = await off_loop(self._executor, len(body), self._arrays, request)
                outputs = await self._inference.answer(
                    servable, signature, inputs, list(request.output_filter), context.time_remaining()
                )
                response = self._apis.predict_pb2.PredictResponse()
                response.model_spec.name = spec.name
                response.model_spec.version.value = servable.version
                response.model_spec.signature_name = signature.name
                size = sum(array.nbytes for array in outputs.values())
                return await off_loop(self._executor, size, _filled, response, outputs)

    async def _metadata(self, body, context):
        request = await self._parse(self._apis.get_model_metadata_pb2.GetModelMetadataRequest, body)
        spec = model_spec(request)
        check_metadata_fields(request.metadata_field)
        with self._inference.use(spec) as servable:
            return metadata_response(spec.name, servable).SerializeToString()

    async def _status(self, body, context):
        spec = model_spec(await self._parse(self._apis.get_model_status_pb2.GetModelStatusRequest, body))
        return status_response(self._inference.versions.status(spec.name, spec.version)).SerializeToString()

    async def _reload(self, body, context):
        request = await self._parse(self._apis.model_management_pb2.ReloadConfigRequest, body)
        versions = self._inference.versions
        versions.configure(version_config(request.config, versions))
        response = self._apis.model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()  # OK
        return response.SerializeToString()

    async def _parse(self, kind, body):
        try:
            return await off_loop(self._executor, len(body), kind.FromString, body)
        except DecodeError as error:
            raise invalid_argument(f"no {kind.DESCRIPTOR.name}: {error}") from None

    def _arrays(self, request):
        return {key: to_array(value, self._max_request_bytes, key) for key, value in request.inputs.items()}


def _filled(response, outputs):
    for key, array in outputs.items():
        response.outputs[key].CopyFrom(to_proto(array))
    return response.SerializeToString()


def _unsupported(method):
    async def answer(body, context):
        raise invalid_argument(f"this server answers Predict only, not {method}")

    return answer


async def _abort(context, code, message):
    try:
        await context.abort(grpc.StatusCode[code], message[:_LONGEST_DETAILS])
    except grpc.aio.AbortError:
        raise
    except Exception:
        # The call is over already: nobody is there to be told.
        raise asyncio.CancelledError from None
