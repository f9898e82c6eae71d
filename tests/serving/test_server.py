"""The embedded server over both protocols: answers, errors, limits."""

import base64
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2

from psanet_tf import attention_maps
from psanet_tf.data.normalization import normalize
from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.protos import serving_apis
from psanet_tf.serving.client import transports
from psanet_tf.serving.client.client import Client
from psanet_tf.serving.server.servable import Servable
from psanet_tf.serving.server.server import Server


@pytest.fixture
def rest(server):
    return f"http://127.0.0.1:{server.rest_port}"


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield channel


def post(rest, document, path="/v1/models/psanet:predict"):
    body = document if isinstance(document, bytes) else json.dumps(document)
    return requests.post(rest + path, data=body, timeout=30)


def png(size=(33, 33), seed=0):
    return tf.io.encode_png(made_image(size, seed)).numpy()


def test_keras_saved_model_grpc_and_rest_agree(network, servable, address):
    images = np.stack([made_image((33, 33), seed) for seed in range(3)])
    keras_labels = network.inference()(normalize(images), training=False).numpy().argmax(-1)
    saved_model = servable.run("serving_default", {"images": images})
    with Client(address) as client:
        labels, scores = client.label_images(images)
        probabilities = client.predict("probabilities", images=images)["probabilities"]
    assert (labels == keras_labels).mean() >= 0.999
    np.testing.assert_array_equal(labels, saved_model["labels"])
    np.testing.assert_array_equal(scores, saved_model["scores"])
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)


def test_attention_over_both_protocols(network, address):
    image, points = made_image((40, 61)), [(3, 4), (60, 39)]
    expected = attention_maps(network, image, points)
    with Client(address) as client:
        answer = client.attention(image, points)
    np.testing.assert_allclose(answer["collect"], expected.collect, atol=1e-5)
    np.testing.assert_allclose(answer["distribute"], expected.distribute, atol=1e-5)


def test_rows_and_columns(rest):
    image = made_image((33, 33)).tolist()
    rows = post(rest, {"instances": [image, image]}).json()["predictions"]
    columns = post(rest, {"inputs": {"images": [image]}}).json()["outputs"]
    assert len(rows) == 2
    assert rows[1]["labels"] == columns["labels"][0]
    encoded = {"b64": base64.b64encode(png((20, 30))).decode()}
    answer = post(rest, {"signature_name": "predict_bytes", "instances": [encoded]}).json()["predictions"]
    assert tf.io.decode_png(base64.b64decode(answer[0]["b64"])).shape == (20, 30, 1)


def test_versions_and_labels_that_are_not_there(server, rest, channel):
    image = {"inputs": [made_image((33, 33)).tolist()]}
    answer = post(rest, image, "/v1/models/psanet/versions/2:predict")
    assert (answer.status_code, answer.json()) == (
        404,
        {"error": "Servable not found for request: Specific(psanet, 2)"},
    )
    answer = post(rest, image, "/v1/models/psanet/labels/canary:predict")
    assert (answer.status_code, answer.json()) == (400, {"error": "Unrecognized servable version label: canary"})
    answer = post(rest, image, "/v1/models/other:predict")
    assert (answer.status_code, answer.json()) == (404, {"error": "Servable not found for request: Latest(other)"})
    with Client(f"grpc://127.0.0.1:{server.grpc_port}/psanet/labels/stable") as client:
        assert client.metadata().crop_size == (33, 33)
    with (
        Client(f"grpc://127.0.0.1:{server.grpc_port}/psanet/versions/9") as client,
        pytest.raises(ServingError) as caught,
    ):
        client.metadata()
    assert caught.value.code == "NOT_FOUND"


def test_status_and_metadata(rest, channel):
    expected = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("", "/versions/1"):
        status = requests.get(f"{rest}/v1/models/psanet{path}", timeout=10)
        assert status.json() == {"model_version_status": [expected]}
    assert requests.get(f"{rest}/v1/models/other", timeout=10).status_code == 404
    metadata = requests.get(f"{rest}/v1/models/psanet/metadata", timeout=10).json()
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    public = [name for name in sorted(signatures) if not name.startswith("__")]
    assert public == ["attention", "metadata", "predict_bytes", "probabilities", "serving_default"]
    assert signatures["serving_default"]["inputs"]["images"]["dtype"] == "DT_UINT8"

    apis = serving_apis()
    request = apis.get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "psanet"
    status = apis.model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request)
    assert status.model_version_status[0].state == apis.get_model_status_pb2.ModelVersionStatus.AVAILABLE
    request = apis.get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "psanet"
    answer = apis.prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(request)
    signatures = apis.get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    assert "predict_bytes" in signatures.signature_def


def huge_header():
    data = bytearray(png())
    data[16:24] = (10_000).to_bytes(4, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("predict_bytes", {"image_bytes": [b"no image"]}, "is no JPEG or PNG image"),
        ("predict_bytes", {"image_bytes": [huge_header()]}, "10000 rows x 10000 columns; 1 to 32000000 pixels"),
        ("predict_bytes", {"image_bytes": [png()[:300]]}, "PNG"),
        ("serving_default", {"images": np.zeros((1, 32, 33, 3), np.uint8)}, r"must be uint8 \[-1,33,33,3\]"),
        ("serving_default", {"images": np.zeros((0, 33, 33, 3), np.uint8)}, "images"),
        ("serving_default", {}, "images"),
        ("serving_default", {"pixels": np.zeros((1, 33, 33, 3), np.uint8)}, "images"),
        ("attention", {"image_bytes": [png()], "points": np.float32([[[40, 1]]])}, r"points\[0\] must be x, y"),
        ("metadata", {"keys": [b"everything"]}, "keys must be among"),
    ],
)
def test_malformed_requests_are_refused_and_the_server_lives_on(address, signature, inputs, message):
    arrays = {
        name: value if isinstance(value, np.ndarray) else np.array(value, object) for name, value in inputs.items()
    }
    with Client(address) as client:
        with pytest.raises(ServingError, match=message) as caught:
            client.predict(signature, **arrays)
        assert caught.value.code == "INVALID_ARGUMENT"
        assert len(caught.value.message) < 1000
        assert client.metadata().crop_size == (33, 33)


def test_wrong_dtypes(rest, channel):
    assert "not of expected type: uint8" in post(rest, {"instances": [[[[0.5]]]]}).json()["error"]
    apis = serving_apis()
    stub = apis.prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = apis.predict_pb2.PredictRequest()
    request.model_spec.name = "psanet"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.zeros((1, 33, 33, 3), np.float32)))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "must be uint8 [-1,33,33,3]" in caught.value.details()


@pytest.mark.parametrize(
    ("break_request", "message"),
    [
        (lambda request: request.ClearField("model_spec"), "Missing ModelSpec"),
        (lambda request: setattr(request.model_spec, "name", ""), "ModelSpec has no name"),
        (lambda request: setattr(request.inputs["images"], "tensor_content", b"123"), "no valid tensor"),
        (lambda request: setattr(request.inputs["images"], "dtype", 99), "no valid tensor"),
        (lambda request: setattr(request.inputs["images"].tensor_shape.dim[1], "size", 10**12), "larger than"),
        (lambda request: setattr(request.inputs["images"].tensor_shape.dim[1], "size", -5), "larger than"),
        (
            lambda request: request.output_filter.append("colours"),
            "output tensor alias not found in signature: colours",
        ),
        (lambda request: request.output_filter.extend(["labels", "labels"]), "duplicate output tensor alias"),
    ],
)
def test_malformed_messages(channel, break_request, message):
    apis = serving_apis()
    request = apis.predict_pb2.PredictRequest()
    request.model_spec.name = "psanet"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(made_image((33, 33))[None]))
    break_request(request)
    with pytest.raises(grpc.RpcError, match=message) as caught:
        apis.prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_outputs_can_be_chosen(channel):
    apis = serving_apis()
    request = apis.predict_pb2.PredictRequest(output_filter=["scores"])
    request.model_spec.name = "psanet"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(made_image((33, 33))[None]))
    answer = apis.prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30)
    assert list(answer.outputs) == ["scores"]
    assert answer.model_spec.version.value == 1


def test_methods_that_are_not_there(rest, channel):
    assert "answers :predict only" in post(rest, {}, "/v1/models/psanet:classify").json()["error"]
    apis = serving_apis()
    stub = apis.prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with pytest.raises(grpc.RpcError, match="Predict only"):
        stub.Classify(classification_pb2.ClassificationRequest(), timeout=10)


def test_bodies_beyond_the_limit_are_refused(server, rest):
    answer = requests.post(f"{rest}/v1/models/psanet:predict", data=b"x" * (64 * 2**20), timeout=30)
    assert answer.status_code == 413
    assert "larger than 33554432 bytes" in answer.json()["error"]
    with pytest.raises(ServingError) as caught, Client(f"grpc://127.0.0.1:{server.grpc_port}/psanet") as client:
        client.predict("serving_default", images=np.zeros((1, 4000, 4000, 3), np.uint8))
    assert caught.value.code == "RESOURCE_EXHAUSTED"


def exchange(server, data, half_close=False):
    """What comes back over a raw connection; empty if the server closes it without a word."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=10) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
            if b"\r\n\r\n" in answer:
                break
        return answer


def test_broken_http(server, rest):
    assert exchange(server, b"HELLO\r\n\r\n").startswith(b"HTTP/1.0 400")
    assert b" 400 " in exchange(server, b"POST /v1/models/psanet:predict HTTP/1.1\r\nContent-Length: many\r\n\r\n")[:20]
    cut_short = b"POST /v1/models/psanet:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"
    # The rest does not come within `read_seconds`.
    assert exchange(server, cut_short).startswith(b"HTTP/1.1 408")
    exchange(server, cut_short, half_close=True)
    exchange(server, b"POST /v1/models/psa", half_close=True)
    assert requests.get(f"{rest}/v1/models/psanet", timeout=10).status_code == 200


@pytest.fixture
def toy_folder(tmp_path, write_toy):
    write_toy(tmp_path, 1)
    return tmp_path


def test_too_many_requests_at_the_same_time(toy_folder, monkeypatch):
    run = Servable.run

    def slowly(servable, name, inputs, outputs=(), seconds=None):
        time.sleep(0.05)
        return run(servable, name, inputs, outputs, seconds)

    monkeypatch.setattr(Servable, "run", slowly)
    # In JSON a lone output has no name; the client knows those of the networks.
    monkeypatch.setitem(transports._LONE_OUTPUTS, "serving_default", "y")
    x = np.float32([[1, 2]])
    options = {"name": "toy", "rest_port": 0, "grpc_port": 0, "max_concurrent_requests": 2}
    with Server(toy_folder, **options) as server:

        def ask(index, retries=0):
            scheme, port = [("grpc", server.grpc_port), ("http", server.rest_port)][index % 2]
            with Client(f"{scheme}://127.0.0.1:{port}/toy", retries=retries) as client:
                try:
                    return client.predict("serving_default", x=x * index)["y"].tolist() == (x * index).tolist()
                except ServingError as error:
                    return error.code

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(32)))
        assert set(answers) == {True, "UNAVAILABLE"}
        # With repetitions everybody gets an answer in the end.
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda index: ask(index, retries=20), range(12))) == {True}


def test_deadlines(server):
    with (
        Client(f"grpc://127.0.0.1:{server.grpc_port}/psanet", timeout=0.001) as client,
        pytest.raises(ServingError) as caught,
    ):
        client.label_images(np.repeat(made_image((33, 33))[None], 50, axis=0))
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_pages_of_other_origins_are_let_in_only_if_asked_for(toy_folder, rest):
    assert "Access-Control-Allow-Origin" not in requests.get(f"{rest}/v1/models/psanet", timeout=10).headers
    with Server(toy_folder, name="toy", rest_port=0, grpc_port=None, cors=True) as server:
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/toy"
        assert requests.get(url, timeout=10).headers["Access-Control-Allow-Origin"] == "*"
        preflight = requests.options(f"{url}:predict", timeout=10)
        assert preflight.headers["Access-Control-Allow-Headers"] == "Content-Type"


def test_pages_of_other_origins_may_send_a_token(toy_folder, tmp_path):
    (tmp_path / "token").write_text("s3cret")
    options = {"cors": True, "token_file": tmp_path / "token"}
    with Server(toy_folder, name="toy", rest_port=0, grpc_port=None, **options) as server:
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/toy"
        # A browser asks without the token whether it may send one.
        preflight = requests.options(f"{url}:predict", timeout=10)
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Headers"] == "Content-Type, Authorization"
        assert requests.get(url, timeout=10).status_code == 401


def test_wrong_arguments(toy_folder, server):
    with pytest.raises(NotADirectoryError, match="is no folder"):
        Server(toy_folder / "none")
    with pytest.raises(ValueError, match="serve the folder above it"):
        Server(toy_folder / "1")
    with pytest.raises(ValueError, match="both None"):
        Server(toy_folder, rest_port=None, grpc_port=None)
    with pytest.raises(ValueError, match="grpc_port are both 8501: each protocol needs its own"):
        Server(toy_folder, rest_port=8501, grpc_port=8501)
    for name in ("poll_seconds", "read_seconds", "max_concurrent_requests", "max_request_bytes", "max_connections"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            Server(toy_folder, **{name: 0})
    with pytest.raises(ValueError, match="drain_seconds must not be negative, got -1"):
        Server(toy_folder, drain_seconds=-1)
    with pytest.raises(ValueError, match="latest_versions must be at least 1"):
        Server(toy_folder, latest_versions=0)
    with pytest.raises(OSError, match="cannot listen on"):
        Server(toy_folder, grpc_port=server.grpc_port, rest_port=None).start()
    with pytest.raises(OSError):
        Server(toy_folder, grpc_port=None, rest_port=server.rest_port).start()
