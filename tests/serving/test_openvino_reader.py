"""OpenVINO reads a SavedModel by itself, without TensorFlow: a judge of the graph that shares no code with it.

Its reader takes the default signature: another one is read from a copy where it is the default. `serving_default` and
`probabilities` are read. The others are not: OpenVINO has no operations that decode and encode image files (DecodeJpeg,
DecodePng, EncodePng, which `predict_bytes` and `attention` need), nor any that compare strings (`metadata`).
"""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from psanet_tf.export.saved_model import export_saved_model
from psanet_tf.export.verification import made_image

openvino = pytest.importorskip("openvino", reason="openvino of the extra openvino is not installed")
pytestmark = pytest.mark.extended


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def version(request, network, classes, evaluate, tmp_path_factory):
    """Folder of the small network's SavedModel: convolutions are sums of products for CPUs, stock ones for GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("psanet_tf.export.saved_model.verify_export", lambda *arguments: None)
        folder = tmp_path_factory.mktemp("models") / request.param
        return export_saved_model(network, folder, classes, evaluate=evaluate, device=request.param).path


@pytest.fixture(scope="module")
def images():
    return np.stack([made_image((33, 33), seed) for seed in range(3)])


def read(path):
    """The default signature, computed in float32 as TensorFlow does; left to itself, OpenVINO takes less."""
    core = openvino.Core()
    return core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def of_tensorflow(path, signature, images):
    loaded = tf.saved_model.load(str(path))
    return {name: value.numpy() for name, value in loaded.signatures[signature](images=tf.constant(images)).items()}


def test_labels_and_scores(version, images):
    model = read(version)
    (source,) = model.inputs
    assert (source.get_any_name(), str(source.partial_shape)) == ("images", "[?,33,33,3]")
    expected = of_tensorflow(version, "serving_default", images)
    for count in (1, 3):
        answer = model({"images": images[:count]})
        assert {output.get_any_name(): answer[output].dtype for output in model.outputs} == {
            "labels": np.uint8,
            "scores": np.uint8,
        }
        assert (answer["labels"] == expected["labels"][:count]).mean() >= 0.999
        difference = np.abs(answer["scores"].astype(int) - expected["scores"][:count])
        assert difference.max() <= 1 and difference.mean() < 0.01
    assert len(np.unique(answer["labels"])) > 2


def test_probabilities(version, images, tmp_path):
    copy = shutil.copytree(version, tmp_path / "copy")
    model = saved_model_pb2.SavedModel.FromString((copy / "saved_model.pb").read_bytes())
    signatures = model.meta_graphs[0].signature_def
    signatures["serving_default"].CopyFrom(signatures["probabilities"])
    (copy / "saved_model.pb").write_bytes(model.SerializeToString())
    answer = read(copy)({"images": images})["probabilities"]
    expected = of_tensorflow(version, "probabilities", images)["probabilities"]
    np.testing.assert_allclose(answer, expected, atol=1e-5)
