"""One call of a served model, over gRPC or REST; both raise `ServingError` alike."""

import base64
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import HTTP_STATUS, ServingError
from psanet_tf.serving.addresses import is_loopback

with needs_extra("serving", "the client of a model server"):
    import orjson

_PATH = re.compile(
    r"(?P<prefix>(?:/[^/:]+)*?)/(?:v1/models/)?(?P<model>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?/?"
)
_EXAMPLE = "such as grpc://127.0.0.1:8500/psanet or http://127.0.0.1:8501/psanet"
_ENCRYPTED = ("grpcs", "https")
_DEFAULT_PORTS = {"grpcs": 443, "https": 443, "http": 80}
# Outputs that come alone lose their name in JSON, and all lose their dtype.
_LONE_OUTPUTS = {"predict_bytes": "label_bytes", "probabilities": "probabilities", "metadata": "values"}
_JSON = {"Content-Type": "application/json"}
_UINT8_OUTPUTS = ("labels", "scores")


@dataclass(frozen=True)
class ModelAddress:
    """Where a served model is asked.

    Attributes:
        scheme: "grpc", "grpcs", "http" or "https".
        host: name or address, the latter of IPv6 in brackets.
        prefix: path before the REST API's own, "" or "/some/where".
        model: its name.
        version, label: which version is meant; neither: the newest.
    """

    scheme: str
    host: str
    port: int
    prefix: str
    model: str
    version: int | None
    label: str | None

    @classmethod
    def parse(cls, url: str) -> "ModelAddress":
        """The address in a URL.

        Raises:
            ValueError: not an address of a model.
        """
        parts = urlsplit(url)
        match = _PATH.fullmatch(parts.path)
        try:
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        except ValueError:
            port = None
        known = parts.scheme in ("grpc", "http", *_ENCRYPTED)
        if not known or not parts.hostname or match is None or port is None:
            raise ValueError(f"{url!r} is no address of a served model, {_EXAMPLE}")
        prefix = match["prefix"]
        if prefix and (parts.scheme.startswith("grpc") or "/v1/models/" not in parts.path):
            raise ValueError(
                f"{url!r} has a path before the model's name, which only the REST API's own addresses may have: "
                f"https://{parts.hostname}{prefix}/v1/models/{match['model']}"
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        version = None if match["version"] is None else int(match["version"])
        return cls(parts.scheme, host, port, prefix, match["model"], version, match["label"])

    @property
    def is_encrypted(self) -> bool:
        return self.scheme in _ENCRYPTED


def connect(url: str, token: str | None = None, ca: str | os.PathLike | None = None) -> "GrpcTransport | RestTransport":
    """The transport for an address; nothing is sent yet.

    Args:
        url: see `Client`.
        token: sent with every request as ``Authorization: Bearer TOKEN``.
        ca: PEM file of the authorities that the server's certificate may be signed by; default: the system's.

    Raises:
        ValueError: not an address of a model; a token that others could read on its way, or `ca` without encryption.
        OSError: `ca` cannot be read.
    """
    address = ModelAddress.parse(url)
    if token is not None and not address.is_encrypted and not is_loopback(address.host.strip("[]")):
        raise ValueError(
            f"{url!r} is not encrypted: everybody on the way could read the token; use grpcs:// or https://"
        )
    if ca is not None and not address.is_encrypted:
        raise ValueError(f"a certificate authority (ca) is for grpcs:// and https://, not for {url!r}")
    kind = GrpcTransport if address.scheme.startswith("grpc") else RestTransport
    return kind(address, token, ca)


class GrpcTransport:
    """PredictionService of TensorFlow Serving."""

    def __init__(self, address: ModelAddress, token: str | None, ca: str | os.PathLike | None) -> None:
        from psanet_tf.runtimes.protos import serving_apis

        with needs_extra("serving", "the client of a model server"):
            import grpc

        self._grpc = grpc
        self._apis = serving_apis("a gRPC client")
        self._address = address
        self._metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            # A name that stands for several servers: all of them are asked in turn.
            ("grpc.lb_policy_name", "round_robin"),
        ]
        target = f"{address.host}:{address.port}"
        if address.is_encrypted:
            roots = None if ca is None else Path(ca).read_bytes()
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options=options)
        else:
            self._channel = grpc.insecure_channel(target, options=options)
        self._stub = self._apis.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray], timeout: float) -> dict[str, np.ndarray]:
        """Output name -> array for a signature and input name -> array."""
        from psanet_tf.runtimes.protos import to_array, to_proto

        request = self._apis.predict_pb2.PredictRequest()
        request.model_spec.name = self._address.model
        request.model_spec.signature_name = signature
        if self._address.version is not None:
            request.model_spec.version.value = self._address.version
        if self._address.label is not None:
            request.model_spec.version_label = self._address.label
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(to_proto(array))
        try:
            response = self._stub.Predict(request, timeout=timeout, metadata=self._metadata)
        except self._grpc.RpcError as error:
            raise ServingError(error.code().name, error.details()) from None
        return {name: to_array(value, np.inf, name) for name, value in response.outputs.items()}

    def close(self) -> None:
        self._channel.close()


class RestTransport:
    """REST API of TensorFlow Serving, in column format."""

    def __init__(self, address: ModelAddress, token: str | None, ca: str | os.PathLike | None) -> None:
        import requests

        self._requests = requests
        self._session = requests.Session()
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"
        if ca is not None:
            Path(ca).read_bytes()  # requests would say that it is missing with the first request only
        # With every request: REQUESTS_CA_BUNDLE in the environment has precedence over the session's.
        self._verify = None if ca is None else str(ca)
        chosen = ""
        if address.version is not None:
            chosen = f"/versions/{address.version}"
        elif address.label is not None:
            chosen = f"/labels/{address.label}"
        server = f"{address.scheme}://{address.host}:{address.port}{address.prefix}"
        self._model_url = f"{server}/v1/models/{address.model}{chosen}"
        self._url = f"{self._model_url}:predict"
        self._lone_outputs = dict(_LONE_OUTPUTS)

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray], timeout: float) -> dict[str, np.ndarray]:
        """Output name -> array for a signature and input name -> array."""
        end = time.monotonic() + timeout
        body = {"signature_name": signature, "inputs": {name: _listed(array) for name, array in inputs.items()}}
        document = self._answer(self._session.post, self._url, timeout, data=_dump(body), headers=_JSON)
        if "outputs" not in document:
            raise ServingError("UNKNOWN", f"{self._url} answers without outputs: {document}")
        outputs = document["outputs"]
        if signature in _LONE_OUTPUTS or not isinstance(outputs, dict):
            outputs = {self._lone_output(signature, max(0.001, end - time.monotonic())): outputs}
        return {name: _array(name, value) for name, value in outputs.items()}

    def close(self) -> None:
        self._session.close()

    def _lone_output(self, signature, timeout):
        """The name of a signature's one output; of a model that is not this package's, the server is asked for it."""
        if signature not in self._lone_outputs:
            document = self._answer(self._session.get, f"{self._model_url}/metadata", timeout)
            try:
                known = document["metadata"]["signature_def"]["signature_def"]
                (self._lone_outputs[signature],) = known[signature or "serving_default"]["outputs"]
            except (KeyError, TypeError, ValueError):
                raise ServingError(
                    "UNKNOWN", f"{self._model_url} does not say what the signature {signature!r} answers with"
                ) from None
        return self._lone_outputs[signature]

    def _answer(self, ask, url, timeout, **options):
        """The object that a server answers with, for a method of the session."""
        try:
            response = ask(url, timeout=timeout, verify=self._verify, **options)
        except self._requests.Timeout as error:
            raise ServingError("DEADLINE_EXCEEDED", f"{url}: {error}") from None
        except self._requests.exceptions.SSLError as error:
            # No pause helps against a certificate that is not trusted.
            raise ServingError("UNAUTHENTICATED", f"{url}: {error}") from None
        except (self._requests.ConnectionError, self._requests.exceptions.ChunkedEncodingError) as error:
            raise ServingError("UNAVAILABLE", f"{url}: {error}") from None
        document = _load(response)
        if response.status_code != 200 or not isinstance(document, dict):
            said = document.get("error", document) if isinstance(document, dict) else document
            raise ServingError(_code(response.status_code), str(said))
        return document


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
