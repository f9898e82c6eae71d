"""One call of a served model, over gRPC or REST; both raise `ServingError` alike."""

import base64
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import numpy as np

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import HTTP_STATUS, ServingError

with needs_extra("serving", "the client of a model server"):
    import orjson

_PATH = re.compile(r"/(?:v1/models/)?(?P<model>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?/?")
_EXAMPLE = "such as grpc://127.0.0.1:8500/psanet or http://127.0.0.1:8501/psanet"
# Outputs that come alone lose their name in JSON, and all lose their dtype.
_LONE_OUTPUTS = {"predict_bytes": "label_bytes", "probabilities": "probabilities", "metadata": "values"}
_JSON = {"Content-Type": "application/json"}
_UINT8_OUTPUTS = ("labels", "scores")


def connect(url: str) -> "GrpcTransport | RestTransport":
    """The transport for an address; nothing is sent yet.

    Raises:
        ValueError: not an address of a model.
    """
    parts = urlsplit(url)
    match = _PATH.fullmatch(parts.path)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("grpc", "http", "https") or not parts.hostname or match is None or port is None:
        raise ValueError(f"{url!r} is no address of a served model, {_EXAMPLE}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    version = None if match["version"] is None else int(match["version"])
    if parts.scheme == "grpc":
        return GrpcTransport(f"{host}:{port}", match["model"], version, match["label"])
    return RestTransport(f"{parts.scheme}://{host}:{port}", match["model"], version, match["label"])


class GrpcTransport:
    """PredictionService of TensorFlow Serving."""

    def __init__(self, address: str, model: str, version: int | None, label: str | None) -> None:
        from psanet_tf.runtimes.protos import serving_apis

        with needs_extra("serving", "the client of a model server"):
            import grpc

        self._grpc = grpc
        self._apis = serving_apis("a gRPC client")
        self._model, self._version, self._label = model, version, label
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._stub = self._apis.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray], timeout: float) -> dict[str, np.ndarray]:
        """Output name -> array for a signature and input name -> array."""
        from psanet_tf.runtimes.protos import to_array, to_proto

        request = self._apis.predict_pb2.PredictRequest()
        request.model_spec.name = self._model
        request.model_spec.signature_name = signature
        if self._version is not None:
            request.model_spec.version.value = self._version
        if self._label is not None:
            request.model_spec.version_label = self._label
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(to_proto(array))
        try:
            response = self._stub.Predict(request, timeout=timeout)
        except self._grpc.RpcError as error:
            raise ServingError(error.code().name, error.details()) from None
        return {name: to_array(value, np.inf, name) for name, value in response.outputs.items()}

    def close(self) -> None:
        self._channel.close()


class RestTransport:
    """REST API of TensorFlow Serving, in column format."""

    def __init__(self, address: str, model: str, version: int | None, label: str | None) -> None:
        import requests

        self._requests = requests
        self._session = requests.Session()
        chosen = f"/versions/{version}" if version is not None else f"/labels/{label}" if label is not None else ""
        self._url = f"{address}/v1/models/{model}{chosen}:predict"

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray], timeout: float) -> dict[str, np.ndarray]:
        """Output name -> array for a signature and input name -> array."""
        body = {"signature_name": signature, "inputs": {name: _listed(array) for name, array in inputs.items()}}
        try:
            response = self._session.post(self._url, data=_dump(body), headers=_JSON, timeout=timeout)
        except self._requests.Timeout as error:
            raise ServingError("DEADLINE_EXCEEDED", f"{self._url}: {error}") from None
        except self._requests.ConnectionError as error:
            raise ServingError("UNAVAILABLE", f"{self._url}: {error}") from None
        document = _load(response)
        if response.status_code != 200 or "outputs" not in document:
            raise ServingError(_code(response.status_code), str(document.get("error", document))[:2000])
        outputs = document["outputs"]
        if signature in _LONE_OUTPUTS:
            outputs = {_LONE_OUTPUTS[signature]: outputs}
        return {name: _array(name, value) for name, value in outputs.items()}

    def close(self) -> None:
        self._session.close()


def _load(response):
    try:
        return orjson.loads(response.content)
    except ValueError:
        # Not JSON, or JSON with NaN and Infinity, which only the standard library reads.
        try:
            return response.json()
        except ValueError:
            return {"error": response.text[:200]}


def _code(status):
    """Name of the gRPC code that TensorFlow Serving gives this HTTP status."""
    if status == 413:
        return "RESOURCE_EXHAUSTED"
    return next((code for code, other in HTTP_STATUS.items() if other == status and code != "UNKNOWN"), "UNKNOWN")


def _dump(body):
    # An order of magnitude faster than the standard library for images as numbers.
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _listed(array):
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array)
    return [{"b64": base64.b64encode(item).decode("ascii")} for item in array]


def _array(name, value):
    if name in _UINT8_OUTPUTS:
        return np.array(value, np.uint8)
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, dict | str):
        array = np.empty(len(value), object)
        array[:] = [base64.b64decode(item["b64"]) if isinstance(item, dict) else item for item in value]
        return array
    return np.array(value, np.float32)
