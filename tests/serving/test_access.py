"""Who may ask the server: hosts, origins, tokens, certificates; prefixes; what it says of itself."""

import shutil
import subprocess

import grpc
import pytest
import requests
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc

from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.protos import serving_apis
from psanet_tf.serving.server.access import BearerToken, BrowserCheck, tls_context
from psanet_tf.serving.server.server import Server


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_toy):
    folder = tmp_path_factory.mktemp("access") / "toy"
    folder.mkdir()
    write_toy(folder, 1)
    return folder


@pytest.mark.parametrize(
    ("listens", "allowed", "headers", "passes"),
    [
        ("127.0.0.1", (), {"Host": "127.0.0.1:8501"}, True),
        ("127.0.0.1", (), {"Host": "LOCALHOST"}, True),
        ("::1", (), {"Host": "[::1]:8501"}, True),
        ("127.0.0.1", (), {}, True),  # HTTP/1.0, which no browser speaks
        ("127.0.0.1", (), {"Host": "evil.example:8501"}, False),
        ("127.0.0.1", (), {"Host": "127.0.0.1.evil.example"}, False),
        ("localhost", (), {"Host": "[::1"}, False),
        ("127.0.0.1", (), {"Host": ""}, False),
        ("127.0.0.1", (), {"Host": "localhost:8501", "Origin": "http://localhost:8501"}, True),
        ("127.0.0.1", (), {"Host": "localhost:8501", "Origin": "http://localhost:3000"}, False),
        ("127.0.0.1", (), {"Host": "localhost:8501", "Origin": "https://evil.example"}, False),
        ("127.0.0.1", (), {"Host": "localhost:8501", "Origin": "null"}, False),
        ("127.0.0.1", (), {"Host": "localhost:8501", "Origin": "http://[::1"}, False),
        ("127.0.0.1", ("model.example",), {"Host": "model.example", "Origin": "https://model.example"}, True),
        ("127.0.0.1", ("model.example",), {"Host": "127.0.0.1:8501", "Origin": "https://Model.example"}, True),
        ("127.0.0.1", ("model.example",), {"Host": "other.example"}, False),
        ("0.0.0.0", (), {"Host": "anything", "Origin": "https://evil.example"}, True),
        ("0.0.0.0", ("model.example",), {"Host": "anything"}, False),
    ],
)
def test_hosts_and_origins(listens, allowed, headers, passes):
    check = BrowserCheck(listens, allowed)
    if passes:
        check.check(headers)
    else:
        with pytest.raises(ServingError) as caught:
            check.check(headers)
        assert (caught.value.code, caught.value.http_status) == ("PERMISSION_DENIED", 403)
        assert "--allowed-host" in caught.value.message
    BrowserCheck(listens, allowed, cors=True).check(headers)


def test_a_token():
    with pytest.raises(FileNotFoundError):
        BearerToken("/no/such/file")


@pytest.mark.parametrize("content", [b"", b"\n", b"two words\n", "schl\u00fcssel".encode(), b"a\nb\n"])
def test_files_that_hold_no_token(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"token must hold a token: one line of ASCII"):
        BearerToken(path)


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """(certificate, key) for localhost and 127.0.0.1, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "certificate.pem", folder / "key.pem"


def predict_request():
    request = serving_apis().predict_pb2.PredictRequest()
    request.model_spec.name = "toy"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0, 2.0]]))
    return request


def test_tls_and_a_token_on_both_protocols(folder, certified, tmp_path):
    certificate, key = certified
    (tmp_path / "token").write_text("s3cret\n")
    options = {"certificate": certificate, "key": key, "token_file": tmp_path / "token", "drain_seconds": 0.2}
    with Server(folder, rest_port=0, grpc_port=0, **options) as server:
        rest, right = f"https://127.0.0.1:{server.rest_port}", {"Authorization": "Bearer s3cret"}
        body = {"instances": [[1, 2]]}

        def get(path, **headers):
            return requests.get(rest + path, headers=headers, verify=certificate, timeout=20)

        predict = f"{rest}/v1/models/toy:predict"
        answer = requests.post(predict, json=body, headers=right, verify=certificate, timeout=20)
        assert answer.json() == {"predictions": [[1, 2]]}
        for wrong in ({}, {"Authorization": "Bearer secret"}, {"Authorization": "s3cret"}, {"Authorization": "Bearer"}):
            for path in ("/v1/models/toy", "/v1/models/toy/metadata", "/monitoring/prometheus/metrics", "/v1/x"):
                answer = get(path, **wrong)
                assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
                assert "wants its token" in answer.json()["error"]
        assert get("/health").json() == {"status": "SERVING"}
        assert get("/health/live").json() == {"status": "alive"}
        assert get("/", Accept="text/html").status_code == 200
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{server.rest_port}/health", timeout=20)

        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
            stub = serving_apis().prediction_service_pb2_grpc.PredictionServiceStub(channel)
            metadata = [("authorization", "bearer s3cret")]
            assert stub.Predict(predict_request(), timeout=20, metadata=metadata).model_spec.version.value == 1
            for metadata in ([], [("authorization", "Bearer secret")]):
                with pytest.raises(grpc.RpcError) as caught:
                    stub.Predict(predict_request(), timeout=20, metadata=metadata)
                assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
            assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_wrong_certificates(folder, certified, tmp_path):
    certificate, key = certified
    (tmp_path / "nonsense.pem").write_text("nonsense")
    with pytest.raises(ValueError, match="nonsense.pem and .*key.pem are no certificate and its key"):
        tls_context(tmp_path / "nonsense.pem", key)
    with pytest.raises(ValueError, match="are no certificate and its key"):
        tls_context(key, certificate)
    with pytest.raises(FileNotFoundError, match="none.pem"):
        tls_context(certificate, tmp_path / "none.pem")
    with pytest.raises(ValueError, match="certificate and key belong together"):
        Server(folder, certificate=certificate)


@pytest.fixture(scope="module")
def prefixed(folder):
    with Server(folder, rest_port=0, grpc_port=0, path_prefix="/models/toy", drain_seconds=0.2) as server:
        yield server


@pytest.fixture
def rest(prefixed):
    return f"http://127.0.0.1:{prefixed.rest_port}"


def test_a_path_prefix(rest):
    assert requests.get(f"{rest}/models/toy/v1/models/toy", timeout=20).status_code == 200
    answer = requests.post(f"{rest}/models/toy/v1/models/toy:predict", json={"inputs": [[1, 2]]}, timeout=20)
    assert answer.json() == {"outputs": [[1, 2]]}
    answer = requests.get(f"{rest}/models/toy", timeout=20, headers={"Accept": "text/html"})
    assert (answer.url, answer.headers["Content-Type"]) == (f"{rest}/models/toy/", "text/html; charset=utf-8")
    assert requests.get(f"{rest}/models/toy/page.js", timeout=20).status_code == 200
    for path in ("/", "/v1/models/toy", "/models/toys/v1/models/toy", "/health"):
        answer = requests.get(rest + path, timeout=20)
        assert (answer.status_code, answer.json()["error"]) == (404, "nothing is outside /models/toy/")


@pytest.mark.parametrize("prefix", ["psanet", "/psanet/", "/", "/a b", "/%61", "//"])
def test_wrong_prefixes(folder, prefix):
    with pytest.raises(ValueError, match="path_prefix must look like /psanet"):
        Server(folder, path_prefix=prefix)


def test_a_page_may_do_little_in_a_browser(rest):
    answer = requests.get(f"{rest}/models/toy/", timeout=20, headers={"Accept": "text/html,*/*"})
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert answer.headers["X-Frame-Options"] == "DENY"
    for path in ("/", "/page.js", "/v1/models/toy", "/v1/models/toys", "/health"):
        assert requests.get(f"{rest}/models/toy{path}", timeout=20).headers["X-Content-Type-Options"] == "nosniff"


def test_other_origins_and_hosts_are_refused(rest):
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        answer = requests.get(f"{rest}/models/toy/v1/models/toy", headers=headers, timeout=20)
        assert answer.status_code == 403
        assert "may not ask" in answer.json()["error"] or "not called evil.example" in answer.json()["error"]


def metrics(rest):
    answer = requests.get(f"{rest}/models/toy/monitoring/prometheus/metrics", timeout=20)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_metrics(rest, prefixed):
    before = metrics(rest)
    for body in ({"inputs": [[1, 2]]}, {"inputs": [[1, 2]]}, {"inputs": "nonsense"}):
        requests.post(f"{rest}/models/toy/v1/models/toy:predict", json=body, timeout=20)
    with grpc.insecure_channel(f"127.0.0.1:{prefixed.grpc_port}") as channel:
        stub = serving_apis().prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(predict_request(), timeout=20)
    after = metrics(rest)

    def more(name):
        return after[name] - before.get(name, 0)

    count = "psanet_serving_requests_total"
    assert more(f'{count}{{code="OK",method="predict",protocol="REST"}}') == 2
    assert more(f'{count}{{code="INVALID_ARGUMENT",method="predict",protocol="REST"}}') == 1
    assert more(f'{count}{{code="OK",method="predict",protocol="gRPC"}}') == 1
    assert more('psanet_serving_request_seconds_count{method="predict",protocol="REST"}') == 3
    assert more('psanet_serving_request_seconds_bucket{le="+Inf",method="predict",protocol="REST"}') == 3
    assert after["psanet_serving_queue_length"] == 0
    assert after['psanet_serving_version_available{version="1"}'] == 1


def health_of(server):
    """(REST's status code, gRPC's statuses of its services)"""
    rest = requests.get(f"http://127.0.0.1:{server.rest_port}/health", timeout=20).status_code
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        names = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
        answers = [stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=20) for name in names]
    return rest, {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) for answer in answers}


def test_readiness_believes_only_a_version_that_takes_requests(tmp_path, write_toy):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"rubbish")
    with Server(tmp_path, "toy", rest_port=0, grpc_port=0, poll_seconds=0.02, drain_seconds=0.2) as server:
        # As in TensorFlow Serving: known, so 200, and yet at its end.
        status = requests.get(f"http://127.0.0.1:{server.rest_port}/v1/models/toy", timeout=20)
        assert status.status_code == 200
        assert status.json()["model_version_status"][0]["state"] == "END"
        assert health_of(server) == (503, {"NOT_SERVING"})
        write_toy(tmp_path, 2)
        assert server.versions.wait_until_available(20)
        end = 200
        while health_of(server) != (200, {"SERVING"}) and end:
            end -= 1
        assert health_of(server) == (200, {"SERVING"})
