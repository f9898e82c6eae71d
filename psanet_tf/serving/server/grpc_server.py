"""TensorFlow Serving's PredictionService and ModelService over gRPC."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from google.protobuf import any_pb2
from google.protobuf.message import Message

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import ServingError, invalid_argument
from psanet_tf.runtimes.protos import serving_apis, to_array, to_proto
from psanet_tf.serving.server.inference import Inference, ModelSpec
from psanet_tf.serving.server.servable import Servable
from psanet_tf.serving.server.versions import VersionStatus

with needs_extra("serving", "the model server"):
    import grpc

logger = logging.getLogger(__name__)

_STATES = {"LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}
_MESSAGE_OVERHEAD = 64 * 1024
_LONGEST_SECONDS = 300.0


def start_grpc_server(
    inference: Inference, executor: ThreadPoolExecutor, host: str, port: int, max_request_bytes: int
) -> tuple[grpc.Server, int]:
    """Starts a server in `executor`'s threads.

    Args:
        inference: `Inference`.
        executor: `concurrent.futures.ThreadPoolExecutor`.
        host, port: where to listen; port 0 lets the system choose.
        max_request_bytes: larger messages are refused as RESOURCE_EXHAUSTED.

    Returns:
        (grpc.Server, port).

    Raises:
        OSError: the address cannot be had.
    """
    apis = serving_apis()
    options = [
        ("grpc.max_receive_message_length", max_request_bytes + _MESSAGE_OVERHEAD),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # two servers on one port would share its requests at random
    ]
    server = grpc.server(executor, options=options)
    apis.prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _prediction_service(apis, inference, max_request_bytes), server
    )
    apis.model_service_pb2_grpc.add_ModelServiceServicer_to_server(_model_service(apis, inference), server)
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error}") from None
    if not bound:
        raise OSError(f"cannot listen on {host}:{port}")
    server.start()
    return server, bound


def status_response(statuses: Sequence[VersionStatus]) -> Message:
    """`GetModelStatusResponse` for a list of `VersionStatus`."""
    apis = serving_apis()
    response = apis.get_model_status_pb2.GetModelStatusResponse()
    for status in statuses:
        item = response.model_version_status.add(version=status.version, state=_STATES[status.state])
        item.status.error_code = grpc.StatusCode[status.error_code].value[0]
        item.status.error_message = status.error_message
    return response


def metadata_response(name: str, servable: Servable) -> Message:
    """`GetModelMetadataResponse` with the signatures of a `Servable`."""
    apis = serving_apis()
    response = apis.get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = name
    response.model_spec.version.value = servable.version
    signatures = apis.get_model_metadata_pb2.SignatureDefMap()
    for key, definition in servable.signature_defs.items():
        signatures.signature_def[key].CopyFrom(definition)
    packed = any_pb2.Any()
    packed.Pack(signatures)
    response.metadata["signature_def"].CopyFrom(packed)
    return response


def _prediction_service(apis, inference, max_request_bytes):
    class PredictionService(apis.prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802 (the service's own name)
            with _errors_as_status(context), inference.admitted():
                spec = _model_spec(request.model_spec)
                remaining = context.time_remaining()
                seconds = _LONGEST_SECONDS if remaining is None else min(remaining, _LONGEST_SECONDS)
                deadline = time.monotonic() + seconds
                with inference.use(spec) as servable:
                    inputs = {key: to_array(value, max_request_bytes, key) for key, value in request.inputs.items()}
                    signature = servable.signature(request.model_spec.signature_name)
                    future = inference.submit(servable, signature.name, inputs, list(request.output_filter), deadline)
                    try:
                        outputs = future.result(timeout=seconds)
                    except TimeoutError:
                        future.cancel()
                        raise ServingError("DEADLINE_EXCEEDED", f"no answer within {seconds:g} seconds") from None
                    response = apis.predict_pb2.PredictResponse()
                    response.model_spec.name = spec.name
                    response.model_spec.version.value = servable.version
                    response.model_spec.signature_name = signature.name
                    for key, array in outputs.items():
                        response.outputs[key].CopyFrom(to_proto(array))
                    return response

        def GetModelMetadata(self, request, context):  # noqa: N802
            with _errors_as_status(context):
                for field in request.metadata_field:
                    if field != "signature_def":
                        raise invalid_argument(f"Metadata field {field} is not supported")
                if not request.metadata_field:
                    raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
                spec = _model_spec(request.model_spec)
                with inference.use(spec) as servable:
                    return metadata_response(spec.name, servable)

        def Classify(self, request, context):  # noqa: N802
            _unsupported(context, "Classify")

        def Regress(self, request, context):  # noqa: N802
            _unsupported(context, "Regress")

        def MultiInference(self, request, context):  # noqa: N802
            _unsupported(context, "MultiInference")

    return PredictionService()


def _model_service(apis, inference):
    class ModelService(apis.model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):  # noqa: N802
            with _errors_as_status(context):
                spec = _model_spec(request.model_spec)
                return status_response(inference.versions.status(spec.name, spec.version, spec.label))

        def HandleReloadConfigRequest(self, request, context):  # noqa: N802
            with _errors_as_status(context):
                _reload(request.config, inference.versions)
                return apis.model_management_pb2.ReloadConfigResponse()

    return ModelService()


def _reload(config, versions):
    """Takes the version labels of the one model that this server has; anything else is refused."""
    models = config.model_config_list.config
    if len(models) != 1 or models[0].name != versions.name:
        raise invalid_argument(f"this server has one model, {versions.name}; the configuration must list just that")
    versions.set_labels(dict(models[0].version_labels))


def _model_spec(spec):
    if not spec.name:
        raise invalid_argument("Missing ModelSpec")
    version = spec.version.value if spec.HasField("version") else None
    return ModelSpec(spec.name, version, spec.version_label or None)


def _unsupported(context, method):
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"this server answers Predict only, not {method}")


class _errors_as_status:  # noqa: N801 (used as a function)
    """Ends the call with the status of a `ServingError`, or INTERNAL for what nobody foresaw."""

    def __init__(self, context):
        self._context = context

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, ServingError):
            self._context.abort(grpc.StatusCode[error.code], error.message)
        elif isinstance(error, Exception) and self._context.code() is None:
            logger.error("request failed", exc_info=error)
            self._context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
