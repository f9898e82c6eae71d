"""Random requests: whatever comes, the server answers with a 4xx or a right answer and lives on.

Damaged ones for a few seconds (PSANET_FUZZ_SECONDS makes it longer), and well-formed ones with odd values.
"""

import base64
import json
import os
import random
import socket
import time

import grpc
import numpy as np
import requests
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2

from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.protos import serving_apis, to_array, to_proto
from psanet_tf.runtimes.saved_model import Signature, TensorSpec
from psanet_tf.serving.client.client import Client
from psanet_tf.serving.server.inference import check_inputs
from psanet_tf.serving.server.json_documents import parse_json
from psanet_tf.serving.server.rest_answers import write_outputs
from psanet_tf.serving.server.rest_tensors import read_inputs, signature_name

SECONDS = float(os.environ.get("PSANET_FUZZ_SECONDS", "3"))


def valid_requests():
    png = tf.io.encode_png(made_image((20, 30))).numpy()
    jpeg = tf.io.encode_jpeg(made_image((20, 30))).numpy()
    encoded = [{"b64": base64.b64encode(data).decode()} for data in (png, jpeg)]
    return [
        {"instances": [made_image((33, 33)).tolist()]},
        {"signature_name": "predict_bytes", "instances": encoded},
        {"signature_name": "attention", "inputs": {"image_bytes": encoded[:1], "points": [[[3, 4]]]}},
        {"signature_name": "metadata", "instances": ["all"]},
    ]


def mutated(data, draw):
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 30])):
        place = draw.randrange(len(data))
        match draw.randrange(4):
            case 0:
                data[place] = draw.randrange(256)
            case 1:
                del data[place : place + draw.randrange(1, 50)]
            case 2:
                data[place:place] = draw.randbytes(draw.randrange(1, 20))
            case 3:
                other = draw.randrange(len(data))
                data[place:place] = data[other : other + draw.randrange(1, 60)]
        if not data:
            data = bytearray(b"{")
    return bytes(data)


def broken_image(document, draw):
    """Valid JSON with a damaged image in it."""
    document = json.loads(json.dumps(document))
    part = document["instances"] if "instances" in document else document["inputs"]["image_bytes"]
    if isinstance(part[0], dict):
        part[0]["b64"] = base64.b64encode(mutated(base64.b64decode(part[0]["b64"]), draw)).decode()
    return json.dumps(document).encode()


def fuzz_rest(server, session, bodies, draw):
    body = draw.choice(bodies)
    body = broken_image(json.loads(body), draw) if draw.random() < 0.4 else mutated(body, draw)
    url = f"http://127.0.0.1:{server.rest_port}/v1/models/psanet:predict"
    answer = session.post(url, data=body, timeout=30)
    assert answer.status_code in (200, 400, 404), (answer.status_code, answer.text[:300], body[:300])
    assert ("error" in answer.json()) == (answer.status_code != 200)


def fuzz_http(server, draw):
    head = b"POST /v1/models/psanet:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{}   "
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=10) as connection:
        connection.sendall(mutated(head, draw))
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
    assert not answer.startswith(b"HTTP/1.1 5"), answer[:300]


def fuzz_grpc(channel, messages, draw):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")  # bytes in, bytes out
    try:
        call(mutated(draw.choice(messages), draw), timeout=30)
    except grpc.RpcError as error:
        allowed = (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.FAILED_PRECONDITION,  # another signature
        )
        assert error.code() in allowed, (error.code(), error.details())


def test_random_requests(server):
    draw = random.Random(0)
    bodies = [json.dumps(document).encode() for document in valid_requests()]
    apis = serving_apis()
    messages = []
    for signature, inputs in (
        ("serving_default", {"images": made_image((33, 33))[None]}),
        ("predict_bytes", {"image_bytes": np.array([tf.io.encode_png(made_image((20, 30))).numpy()], object)}),
    ):
        request = apis.predict_pb2.PredictRequest()
        request.model_spec.name = "psanet"
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        messages.append(request.SerializeToString())
    end = time.monotonic() + SECONDS
    rounds = 0
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel, requests.Session() as session:
        while time.monotonic() < end or rounds < 20:
            fuzz_rest(server, session, bodies, draw)
            fuzz_http(server, draw)
            fuzz_grpc(channel, messages, draw)
            rounds += 1
    with Client(f"http://127.0.0.1:{server.rest_port}/psanet") as client:
        assert client.labels(made_image((20, 30))).shape == (20, 30)


DTYPES = ("float32", "float64", "float16", "bfloat16", "uint8", "int32", "int64", "uint64", "bool", "string")
DTYPES += ("complex64",)
KEYS = st.sampled_from(["a", "b", "b64", "", "\ud800", "x" * 3000])
TEXTS = st.one_of(st.text(max_size=5), st.sampled_from(["YQ==", "Y Q", "=", "\udfff", "\0", "\ud83d\ude00"]))
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 255, 256, 2**24, 2**31, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400]),
    st.floats(),
    st.booleans(),
)
LEAVES = st.one_of(NUMBERS, TEXTS, st.none(), st.builds(lambda text: {"b64": text}, TEXTS))
DEEP = st.builds(lambda leaf, depth: nested(leaf, depth), LEAVES, st.sampled_from([30, 33, 65, 1000, 3000]))
VALUES = st.recursive(
    LEAVES | DEEP, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)
DOCUMENTS = st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name"]), VALUES, max_size=3)


def nested(leaf, depth):
    for _ in range(depth):
        leaf = [leaf]
    return leaf


def to_text(value):
    """JSON, of which the standard library writes only what is not nested deeply."""
    depth = 0
    while isinstance(value, list) and len(value) == 1:
        depth, value = depth + 1, value[0]
    if isinstance(value, list):
        inner = ",".join(map(to_text, value))
        return "[" * depth + f"[{inner}]" + "]" * depth
    if isinstance(value, dict):
        inner = ",".join(f"{json.dumps(key)}:{to_text(item)}" for key, item in value.items())
        return "[" * depth + f"{{{inner}}}" + "]" * depth
    return "[" * depth + json.dumps(value) + "]" * depth


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(document=DOCUMENTS, dtype=st.sampled_from(DTYPES), two=st.booleans())
def test_odd_documents(document, dtype, two):
    specs = {name: TensorSpec(name, tf.as_dtype(dtype), None) for name in ("a", "b")[: 1 + two]}
    signature = Signature("s", specs, specs, "")
    try:
        parsed = parse_json(to_text(document).encode())
        signature_name(parsed)
        inputs, kind = read_inputs(parsed, signature)
        check_inputs(signature, inputs)
        json.loads(write_outputs(inputs, kind))
    except ServingError as error:
        assert error.http_status in (400, 501)
        assert len(json.dumps(error.message)) < 20_000 and error.message.encode()


TENSORS = st.builds(
    tensor_pb2.TensorProto,
    dtype=st.integers(0, 32) | st.integers(100, 132),
    tensor_shape=st.builds(
        lambda sizes, unknown: {"dim": [{"size": size} for size in sizes], "unknown_rank": unknown},
        st.lists(st.sampled_from([-5, -1, 0, 1, 2, 3, 10**6, 2**62]), max_size=5) | st.just([1] * 70),
        st.booleans(),
    ),
    tensor_content=st.binary(max_size=20),
    float_val=st.lists(st.floats(width=32), max_size=3),
    int_val=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    string_val=st.lists(st.binary(max_size=3), max_size=3),
    half_val=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    scomplex_val=st.lists(st.floats(width=32), max_size=3),
)


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tensor=TENSORS, dtype=st.sampled_from(DTYPES))
def test_odd_tensors(tensor, dtype):
    specs = {"a": TensorSpec("a", tf.as_dtype(dtype), (-1, 3))}
    try:
        array = to_array(tensor, 10_000, "a")
        assert array.nbytes <= 10_000
        check_inputs(Signature("s", specs, specs, ""), {"a": array})
        to_proto(array)
    except ServingError as error:
        assert error.code == "INVALID_ARGUMENT"


PATH_PARTS = [b"/", b"v1", b"/models", b"/psanet", b"/versions/", b"9" * 5000, b"/labels/", b":predict", b":classify"]
PATH_PARTS += [b"/metadata", b"%", b"%ff", b"%00", b"..", b"//", b"?", b"#", b"*", b"http://", b"[", b"\x00"]
PATH_PARTS += [b"\xed\xa0\x80"]


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"CONNECT", b"BREW"]),
    parts=st.lists(st.sampled_from(PATH_PARTS), max_size=8),
    body=st.sampled_from([b"", b"{}", b'{"instances": [1]}']),
)
def test_odd_paths(server, method, parts, body):
    head = b" ".join([method, b"".join(parts), b"HTTP/1.1"]) + b"\r\nHost: localhost\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=10) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = connection.recv(65536)
    assert answer[9:10] in (b"2", b"4", b""), (head, answer[:300])
