"""Random requests: whatever comes, the server answers with a 4xx or a right answer and lives on.

Runs for a few seconds; PSANET_FUZZ_SECONDS makes it longer.
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

from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.protos import serving_apis
from psanet_tf.serving.client.client import Client

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
        # UNKNOWN/INTERNAL with gRPC's own text: the bytes are no message at all.
        undecodable = "deserializing" in (error.details() or "")
        allowed = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
        assert error.code() in allowed or undecodable, (error.code(), error.details())


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
