"""OpenVINO Model Server's client asks the embedded server: its own protos, and neither TensorFlow nor this package."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.data.pixels import decode_label
from psanet_tf.data.plain_copies import png_bytes
from psanet_tf.export.verification import made_image

PYTHON = Path(__file__).parents[2] / ".lanes" / "ovmsclient" / "bin" / "python"

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no {PYTHON}: make .lanes/ovmsclient/installed makes it"),
]


@pytest.fixture(scope="module")
def images():
    return np.stack([made_image((33, 33), seed) for seed in range(2)])


@pytest.fixture(scope="module")
def photo():
    return made_image((50, 71), seed=4)


@pytest.fixture(scope="module")
def asked(server, images, photo, tmp_path_factory):
    """(arrays, facts) that the client got, see ask_with_ovmsclient.py."""
    folder = tmp_path_factory.mktemp("ovmsclient")
    np.savez(folder / "inputs.npz", images=images, photo=np.frombuffer(png_bytes(photo), np.uint8))
    addresses = [f"127.0.0.1:{port}" for port in (server.grpc_port, server.rest_port)]
    # Isolated (-I): nothing of this environment is found from there.
    command = [PYTHON, "-I", Path(__file__).with_name("ask_with_ovmsclient.py"), *addresses, folder]
    subprocess.run(command, check=True, timeout=300)
    return np.load(folder / "answers.npz"), json.loads((folder / "answers.json").read_text())


@pytest.fixture(scope="module")
def direct(model_folder, images):
    """Signature -> name -> array, of the SavedModel called in this process."""
    loaded = tf.saved_model.load(str(model_folder / "1"))
    return {
        signature: {key: value.numpy() for key, value in loaded.signatures[signature](tf.constant(images)).items()}
        for signature in ("serving_default", "probabilities")
    }


def test_the_judge_is_independent(asked):
    assert asked[1]["modules"] == []


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_labels_and_scores(asked, direct, protocol):
    arrays, expected = asked[0], direct["serving_default"]
    labels, scores = (arrays[f"{protocol} {name}"] for name in ("labels", "scores"))
    if protocol == "grpc":
        assert labels.dtype == scores.dtype == np.uint8  # JSON says no dtypes
    assert labels.shape == expected["labels"].shape and len(np.unique(labels)) > 2
    assert (labels == expected["labels"]).mean() >= 0.999
    assert np.abs(scores.astype(int) - expected["scores"]).max() <= 1


def test_probabilities(asked, direct):
    found = asked[0]["grpc probabilities"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, direct["probabilities"]["probabilities"], atol=1e-6)


def test_labels_of_a_file(asked, window, photo):
    labels = decode_label(asked[0]["grpc label_bytes"].tobytes(), "the answer")
    assert (labels == window.labels(photo)).mean() >= 0.999


def test_metadata(asked):
    pixels = {"shape": [-1, 33, 33], "dtype": "DT_UINT8"}
    assert asked[1]["grpc"]["metadata"] == {
        "model_version": 1,
        "inputs": {"images": {"shape": [-1, 33, 33, 3], "dtype": "DT_UINT8"}},
        "outputs": {"labels": pixels, "scores": pixels},
    }
    # Over REST it hands on what it gets.
    metadata = asked[1]["http"]["metadata"]
    assert metadata["model_spec"] == {"name": "psanet", "signature_name": "", "version": "1"}
    images = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["images"]
    assert [int(dim["size"]) for dim in images["tensor_shape"]["dim"]] == [-1, 33, 33, 3]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_status(asked, protocol):
    status = {"1": {"state": "AVAILABLE", "error_code": 0, "error_message": ""}}
    assert asked[1][protocol]["status"] == asked[1][protocol]["status of 1"] == status


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(
    ("question", "kind", "text"),
    [
        ("shape", "InvalidInputError", r"images must be uint8 \[-1,33,33,3\] .* got uint8 \[2,20,33,3\]"),
        ("dtype", "InvalidInputError", r"input images.*(must be uint8|is not of expected type: uint8)"),
        ("input", "InvalidInputError", "Missing (but required: {images}|named input: images)"),
        ("model", "ModelNotFoundError", "Servable not found for request: .*other"),
        ("version", "ModelNotFoundError", r"Servable not found for request: Specific\(psanet, 7\)"),
    ],
)
def test_errors(asked, protocol, question, kind, text):
    found, message = asked[1][protocol]["errors"][question]
    assert found == kind
    assert re.search(text, message), message
