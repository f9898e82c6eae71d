"""Nobody stops the server: idle, slow and vanishing clients, too many of them, and the order to stop itself."""

import gzip
import http.client
import itertools
import json
import logging
import socket
import threading
import time

import grpc
import pytest
import requests
import tensorflow as tf

from psanet_tf.runtimes.protos import serving_apis
from psanet_tf.serving.server import server as server_module
from psanet_tf.serving.server.servable import Servable
from psanet_tf.serving.server.server import Server
from psanet_tf.serving.server.versions import VersionManager

# 10 MB of spaces
BOMB = gzip.compress(b" " * 10_000_000)
BODY = b'{"instances": [[1, 2]]}'
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_toy):
    folder = tmp_path_factory.mktemp("robust") / "toy"
    folder.mkdir()
    write_toy(folder, 1)
    return folder


@pytest.fixture
def serve(folder):
    """`serve(**options)` -> a running server of the toy, stopped at the end."""
    servers = []

    def start(**options):
        options = {"rest_port": 0, "grpc_port": 0, "drain_seconds": 0.2, **options}
        servers.append(Server(folder, **options).start())
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def gate(monkeypatch):
    """The model waits until this event is set; `gate.calls` are the values that came to it."""
    gate = threading.Event()
    gate.calls = []
    run = Servable.run

    def wait(servable, name, inputs, outputs=(), seconds=None):
        gate.calls.append(float(inputs["x"][0, 0]))
        gate.wait(20)
        return run(servable, name, inputs, outputs, seconds)

    monkeypatch.setattr(Servable, "run", wait)
    yield gate
    gate.set()


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def url(server, path="/v1/models/toy:predict"):
    return f"http://127.0.0.1:{server.rest_port}{path}"


def ask(server, value=1):
    return requests.post(url(server), json={"instances": [[value, 2]]}, timeout=20)


def grpc_request(value=1):
    request = serving_apis().predict_pb2.PredictRequest()
    request.model_spec.name = "toy"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[float(value), 2.0]]))
    return request


def stub_of(channel):
    return serving_apis().prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def connect():
    """`connect(server, data)` -> a raw connection to REST, with `data` sent."""
    connections = []

    def open_connection(server, data=b""):
        connections.append(socket.create_connection(("127.0.0.1", server.rest_port), timeout=10))
        connections[-1].sendall(data)
        return connections[-1]

    yield open_connection
    for connection in connections:
        connection.close()


def after(event):
    """A stream of one message, which comes when `event` does."""
    event.wait(20)
    yield b""


def head(length, path="/v1/models/toy:predict"):
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()


def test_idle_uploads_and_streams_keep_nobody_out(serve, connect):
    server = serve(max_concurrent_requests=4)
    uploads = [connect(server, head(100)) for _ in range(4)]
    until(lambda: len(server._rest._uploads._arriving) == 4)
    address = f"127.0.0.1:{server.grpc_port}"
    never = threading.Event()
    with grpc.insecure_channel(address) as idle, grpc.insecure_channel(address) as channel:
        streams = [idle.stream_unary(PREDICT).future(after(never)) for _ in range(12)]
        # Of bodies under way there are as many as of requests: the oldest ones give way, here all of REST's.
        for upload in uploads:
            assert upload.recv(4096).startswith(b"HTTP/1.1 503")
        for value in range(3):
            assert ask(server, value).json() == {"predictions": [[value, 2]]}
            answer = stub_of(channel).Predict(grpc_request(value), timeout=20)
            assert tf.make_ndarray(answer.outputs["y"]).tolist() == [[value, 2]]
        until(lambda: sum(stream.done() for stream in streams) >= 8)
        given_up = [stream for stream in streams if stream.done()]
        assert {stream.code() for stream in given_up} == {grpc.StatusCode.UNAVAILABLE}
        assert len(given_up) < 12
        never.set()


def test_a_stream_without_a_message_ends(serve):
    server = serve(rest_port=None, read_seconds=0.2)
    never = threading.Event()
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stream = channel.stream_unary(PREDICT).future(after(never))
        assert stream.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "did not arrive within 0.2 seconds" in stream.details()
        never.set()
        empty = channel.stream_unary(PREDICT).future(iter(()))
        assert (empty.code(), empty.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "the request has no message")


def test_the_longest_idle_connection_gives_way(serve, connect):
    server = serve(grpc_port=None, max_connections=3)
    idle = [connect(server) for _ in range(3)]
    with requests.Session() as session:
        assert session.post(url(server), data=BODY, timeout=20).status_code == 200
        assert idle[0].recv(100) == b""
        fourth = connect(server, head(len(BODY)) + BODY)
        assert fourth.recv(4096).startswith(b"HTTP/1.1 200")
        assert idle[1].recv(100) == b""


def test_connections_that_are_at_work_do_not_give_way(serve, connect, gate):
    server = serve(grpc_port=None, max_connections=2)
    at_work = [connect(server, head(len(BODY)) + BODY) for _ in range(2)]
    until(lambda: len(server._rest._connections._at_work) == 2)
    assert connect(server).recv(4096) == b""
    gate.set()
    for connection in at_work:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_old_connections_are_closed_after_an_answer(serve, monkeypatch):
    monkeypatch.setattr("psanet_tf.serving.server.rest_server._OLDEST_SECONDS", -1)
    server = serve(grpc_port=None)
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=20)
    connection.request("GET", "/v1/models/toy")
    assert connection.getresponse().getheader("Connection") == "close"
    connection.close()


def test_what_a_client_hung_up_on_never_starts_and_is_one_line_of_log(serve, connect, gate, caplog):
    server = serve()
    caplog.set_level(logging.INFO)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        first = stub_of(channel).Predict.future(grpc_request(1))
        until(lambda: gate.calls == [1])
        cancelled = stub_of(channel).Predict.future(grpc_request(2))
        gone = connect(server, head(len(BODY)) + BODY.replace(b"1", b"3"))
        halfway = connect(server, head(1000) + b"{")
        until(lambda: len(server._queue) == 2)
        cancelled.cancel()
        gone.close()
        halfway.close()
        until(lambda: len(server._queue) == 0)
        last = stub_of(channel).Predict.future(grpc_request(4))
        gate.set()
        assert first.result(20) and last.result(20)
    assert gate.calls == [1, 4]
    until(lambda: len(caplog.records) >= 5)
    time.sleep(0.05)
    lines = sorted(" ".join(record.getMessage().split()[1:4]) for record in caplog.records)
    assert lines == ["REST predict CANCELLED"] * 2 + ["gRPC predict CANCELLED"] + ["gRPC predict OK"] * 2


def test_a_deadline_ends_what_waits(serve, gate):
    server = serve(rest_port=None)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        first = stub_of(channel).Predict.future(grpc_request(1))
        until(lambda: gate.calls == [1])
        late = stub_of(channel).Predict.future(grpc_request(2), timeout=0.1)
        assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: len(server._queue) == 0)
        gate.set()
        assert first.result(20)
    assert gate.calls == [1]


def test_bodies_that_are_broken_are_the_senders_fault(serve, connect):
    server = serve(grpc_port=None, max_request_bytes=1_000_000)
    start = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    for data in (
        start + chunked + b"zz\r\n{}\r\n",
        start + chunked + b"2\r\n{}3\r\n",
        start + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        start + b"Content-Encoding: deflate\r\nContent-Length: 5\r\n\r\nhello",
        start + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB,
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /v1/\xed\xa0\x80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /v1/models/%ff%ed%a0%80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ):
        answer = connect(server, data).recv(65536)
        assert answer[9:12] in (b"400", b"404", b"413"), (data, answer)
        assert (answer[9:12] == b"413") == data.endswith(BOMB)
    assert ask(server).status_code == 200


def test_a_message_of_very_many_inputs_is_not_looked_into(serve, monkeypatch):
    server = serve(rest_port=None)
    monkeypatch.setattr("psanet_tf.serving.server.grpc_server.to_array", lambda *_: pytest.fail("converted"))
    request = grpc_request()
    for number in range(2000):
        request.inputs[f"{number}"].CopyFrom(request.inputs["x"])
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            stub_of(channel).Predict(request, timeout=20)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "input size does not match signature: 2001!=1"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nBad Header\r\n\r\n", b"GET / HTTP/1.1\r\nA: b\r\n\r\n" * 40])
def test_what_is_no_http_is_a_line_of_log_at_most(serve, connect, caplog, data):
    server = serve(grpc_port=None)
    caplog.set_level(logging.INFO)
    connection = connect(server, data)
    assert connection.recv(65536).startswith(b"HTTP/1.")
    time.sleep(0.05)
    assert all(record.exc_info is None and record.levelno == logging.INFO for record in caplog.records)
    assert all("\n" not in record.getMessage() for record in caplog.records)


@pytest.fixture
def stopping(serve, gate):
    """A server with a request of each protocol under way: (server, REST's answer, gRPC's, how to stop it)."""
    started = []

    def start(drain_seconds):
        server = serve(drain_seconds=drain_seconds)
        channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
        answers = []
        rest = threading.Thread(target=lambda: answers.append(_answer_or_error(server)))
        rest.start()
        until(lambda: gate.calls == [1])
        call = stub_of(channel).Predict.future(grpc_request(2))
        until(lambda: len(server._queue) == 1)
        stop = threading.Thread(target=server.stop)
        stop.start()
        started.append((channel, rest, stop))
        return server, answers, rest, call, stop

    yield start
    gate.set()
    for channel, rest, stop in started:
        rest.join(20)
        stop.join(20)
        channel.close()


def _answer_or_error(server):
    try:
        return ask(server).status_code
    except requests.ConnectionError as error:
        return error


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_stopping_server_listens_no_more_and_answers_what_is_under_way(stopping, gate):
    server, answers, rest, call, stop = stopping(drain_seconds=20)
    until(lambda: refuses(server.rest_port) and refuses(server.grpc_port))
    assert stop.is_alive() and not answers and not call.done()
    gate.set()
    assert tf.make_ndarray(call.result(20).outputs["y"]).tolist() == [[2, 2]]
    rest.join(20)
    assert answers == [200]
    stop.join(20)
    assert not stop.is_alive()


def test_an_answer_that_is_still_being_read_is_not_cut_off(serve):
    server = serve(grpc_port=None, drain_seconds=20)
    body = json.dumps({"instances": [[1.5, 2.5]] * 100_000}).encode()
    with socket.socket() as slow:
        slow.settimeout(20)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.connect(("127.0.0.1", server.rest_port))
        slow.sendall(head(len(body)) + body)
        answer = slow.recv(100)
        stop = threading.Thread(target=server.stop)
        stop.start()
        until(lambda: refuses(server.rest_port))
        time.sleep(0.05)
        while part := slow.recv(1_000_000):
            answer += part
        stop.join(20)
    start, _, content = answer.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 200")
    assert json.loads(content) == {"predictions": [[1.5, 2.5]] * 100_000}


def test_both_protocols_have_one_deadline(stopping, monkeypatch):
    monkeypatch.setattr(server_module, "_CANCEL_SECONDS", 0.1)
    _, answers, rest, call, stop = stopping(drain_seconds=0.3)
    started = time.monotonic()
    assert call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    rest.join(20)
    assert isinstance(answers[0], requests.ConnectionError)
    stop.join(20)
    assert not stop.is_alive()
    assert time.monotonic() - started < 15  # not the 20 seconds of the model


def test_ports_are_tried_before_the_model_is_loaded(serve, folder, monkeypatch):
    server = serve(poll_seconds=60)
    monkeypatch.setattr(VersionManager, "poll", lambda self: pytest.fail("loaded"))
    for options in (
        {"rest_port": server.rest_port, "grpc_port": None},
        {"rest_port": None, "grpc_port": server.grpc_port},
        {"rest_port": 0, "grpc_port": server.rest_port},
    ):
        with pytest.raises(OSError, match="cannot listen on 127.0.0.1:.* in use; choose another port or host"):
            Server(folder, **options).start()
    with pytest.raises(OSError, match="cannot listen on 192.0.2.1:0: Cannot assign"):
        Server(folder, host="192.0.2.1", rest_port=0, grpc_port=0).start()
    with pytest.raises(OSError, match="cannot listen on no such host:0"):
        Server(folder, host="no such host", rest_port=0, grpc_port=0).start()


def test_an_ipv6_address(serve):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    server = serve(host="::1")
    answer = requests.get(f"http://[::1]:{server.rest_port}/v1/models/toy", timeout=20)
    assert answer.status_code == 200
    with grpc.insecure_channel(f"[::1]:{server.grpc_port}") as channel:
        assert stub_of(channel).Predict(grpc_request(), timeout=20)


def test_many_requests_at_once_in_one_connection(serve, connect):
    server = serve(grpc_port=None)
    connection = connect(server, b"".join(itertools.repeat(head(len(BODY)) + BODY, 40)))
    answers = b""
    while answers.count(b"predictions") < 40:
        answers += connection.recv(65536)
    assert answers.count(b"HTTP/1.1 200") == 40
