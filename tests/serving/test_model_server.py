"""The same end-to-end checks against TensorFlow Serving's own server, where there is one.

A `tensorflow_model_server` on the PATH is taken, or Docker with a reachable daemon and the image
tensorflow/serving (the environment variable PSANET_SERVING_IMAGE names another one).
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time

import numpy as np
import pytest
import requests
import tensorflow as tf

from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.errors import ServingError
from psanet_tf.serving.client.client import Client

IMAGE = os.environ.get("PSANET_SERVING_IMAGE", "tensorflow/serving:2.20.0")


def has_image():
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(
    shutil.which("tensorflow_model_server") is None and not has_image(),
    reason=f"neither tensorflow_model_server nor Docker with the image {IMAGE} here",
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def ports(model_folder):
    grpc_port, rest_port = free_port(), free_port()
    if shutil.which("tensorflow_model_server"):
        command = ["tensorflow_model_server", f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
        command += ["--model_name=psanet", f"--model_base_path={model_folder}"]
    else:
        command = ["docker", "run", "--rm", "-v", f"{model_folder}:/models/psanet:ro", "-e", "MODEL_NAME=psanet"]
        command += ["-p", f"127.0.0.1:{grpc_port}:8500", "-p", f"127.0.0.1:{rest_port}:8501", IMAGE]
    process = subprocess.Popen(command)
    try:
        end = time.monotonic() + 180
        while True:
            with contextlib.suppress(requests.RequestException):
                status = requests.get(f"http://127.0.0.1:{rest_port}/v1/models/psanet", timeout=5)
                if "AVAILABLE" in status.text:
                    break
            assert process.poll() is None and time.monotonic() < end, "the server did not become ready"
            time.sleep(0.5)
        yield {"grpc": grpc_port, "http": rest_port}
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(params=["grpc", "http"])
def stock(ports, request):
    with Client(f"{request.param}://127.0.0.1:{ports[request.param]}/psanet") as client:
        yield client


def test_answers_are_those_of_the_saved_model(stock, servable):
    images = np.stack([made_image((33, 33), seed) for seed in range(2)])
    expected = servable.run("serving_default", {"images": images})
    labels, scores = stock.label_images(images)
    assert (labels == expected["labels"]).mean() >= 0.999
    assert np.abs(scores.astype(int) - expected["scores"]).max() <= 1
    image = made_image((50, 71))
    data = np.array([tf.io.encode_png(image).numpy()], object)
    expected = tf.io.decode_png(servable.run("predict_bytes", {"image_bytes": data})["label_bytes"][0])
    assert (stock.labels(image) == expected[..., 0]).numpy().mean() >= 0.999
    points = np.float32([[[3, 4], [60, 40]]])
    expected = servable.run("attention", {"image_bytes": data, "points": points})
    answer = stock.attention(image, points[0])
    np.testing.assert_allclose(answer["collect"], expected["collect"][0], atol=1e-5)
    assert stock.metadata().crop_size == (33, 33)


def test_malformed_requests_get_the_same_codes(stock):
    for signature, inputs in (
        ("predict_bytes", {"image_bytes": np.array([b"no image, though long enough for one"], object)}),
        ("serving_default", {"images": np.zeros((1, 32, 33, 3), np.uint8)}),
        ("metadata", {"keys": np.array([b"everything"], object)}),
    ):
        with pytest.raises(ServingError) as caught:
            stock.predict(signature, **inputs)
        assert caught.value.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
