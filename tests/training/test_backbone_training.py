"""A network on another backbone through training, prediction, attention, export and the commands."""

import base64
import dataclasses
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import requests
import tensorflow as tf
from PIL import Image
from small_backbones import set_random_weights, small_convnext
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf import Segmenter, attention_maps
from psanet_tf.config import load_config
from psanet_tf.data import normalize
from psanet_tf.export.saved_model import export_saved_model
from psanet_tf.inference.attention import grid_points
from psanet_tf.keras_api import keras
from psanet_tf.models import build_model
from psanet_tf.training.trainer import train
from psanet_tf.weights.checkpoints import load_trained

pytestmark = pytest.mark.extended

BACKBONE = ["model.backbone=ConvNeXtTiny", "model.blocks=null"]


def test_a_backbone_in_a_file_gives_its_graph_and_takes_the_precision(config, tmp_path):
    small_convnext(include_top=False, include_preprocessing=False, weights=None, input_shape=(65, 65, 3)).save(
        tmp_path / "mine.keras"
    )
    (tmp_path / "text.keras").write_text("nothing")
    options = ["model.blocks=null", "model.backbone_preprocessing=torch"]
    model = build_model(config(*options, f"model.backbone={tmp_path / 'mine.keras'}"), 4, dtype="mixed_bfloat16")
    assert model.get_layer("preprocessing").kind == "torch" and model.has_backbone
    assert {layer.compute_dtype for layer in model.get_layer("backbone").layers if layer.weights} == {"bfloat16"}
    with pytest.raises(ValueError, match="model.backbone: .*text.keras cannot be read as a Keras model"):
        build_model(config(*options, f"model.backbone={tmp_path / 'text.keras'}"), 4)


@pytest.fixture(scope="module")
def folder(config_file, tmp_path_factory):
    """Has backbone.weights.h5, ``run``, a training with that backbone frozen, ``exported`` of it, and image.png."""
    folder = tmp_path_factory.mktemp("frozen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "ConvNeXtTiny", small_convnext)
        backbone = small_convnext(include_top=False, weights=None, input_shape=(65, 65, 3))
        set_random_weights(backbone)
        backbone.save_weights(folder / "backbone.weights.h5")
        options = [f"model.backbone_weights={folder / 'backbone.weights.h5'}", "model.aux_head=false"]
        options += ["train.freeze=[backbone]", "train.epochs=1", "data.crop_size=[65, 65]"]
        result = train(load_config(config_file, [*BACKBONE, *options]), folder / "run")
        assert np.isfinite(result.position.best_miou)
        image = np.random.default_rng(0).integers(0, 256, (65, 65, 3)).astype("uint8")
        Image.fromarray(image).save(folder / "image.png")
        trained = load_trained(folder / "run")
        export_saved_model(trained.model, folder / "exported", trained.info, trained.evaluate, warm_up=False)
        yield folder


@pytest.fixture(scope="module")
def model(folder):
    return load_trained(folder / "run").model


@pytest.fixture(scope="module")
def image(folder):
    return np.asarray(Image.open(folder / "image.png"))


@pytest.fixture(scope="module")
def probabilities(model, image):
    return tf.nn.softmax(model(normalize(image)[None], training=False)).numpy()[0]


def assert_labels(labels, probabilities):
    """Those of the largest probability, of which there are several."""
    assert len(np.unique(labels)) > 1
    largest = probabilities.max(axis=-1)
    np.testing.assert_allclose(np.take_along_axis(probabilities, labels[..., None], -1)[..., 0], largest, atol=1e-5)


def test_a_frozen_backbone_of_given_weights_and_one_head(folder, model):
    assert model.has_backbone and not model.has_aux_head and not model.get_layer("backbone").trainable
    backbone = small_convnext(include_top=False, weights=None, input_shape=(65, 65, 3))
    backbone.load_weights(folder / "backbone.weights.h5")
    own = {weight.path: np.asarray(weight) for weight in backbone.weights}
    # The others' names count the layers of their kind.
    same = [weight for weight in model.get_layer("backbone").weights if weight.path in own]
    assert len(same) > len(own) / 2
    for weight in same:
        np.testing.assert_array_equal(weight, own[weight.path])


def test_exported_answers_are_the_networks(folder, model, image, probabilities):
    signatures = tf.saved_model.load(str(folder / "exported/1")).signatures
    found = signatures["probabilities"](images=image[None])["probabilities"]
    np.testing.assert_allclose(found[0], probabilities, atol=1e-5)


def test_exported_attention_is_the_networks_wherever_one_points(folder, model, image):
    """Of a backbone whose features begin well inside the image."""
    exported = Segmenter.load(folder / "exported")
    for part in (image, image[:50, :30]):
        points = grid_points(part.shape[:2], 8, 9)
        maps, served = attention_maps(model, part, points), exported.attention(part, points)
        assert maps.placement.map_size == (3, 3) and min(maps.placement.first) > 10
        assert len({maps.placement.position(*point) for point in points}) > 4
        np.testing.assert_allclose(maps.collect.sum(axis=(1, 2)), 1, atol=1e-4)
        np.testing.assert_allclose(served.collect, maps.collect, atol=1e-5)
        np.testing.assert_allclose(served.distribute, maps.distribute, atol=1e-5)
        for values, expected in zip(*map(dataclasses.astuple, (served.placement, maps.placement)), strict=True):
            np.testing.assert_allclose(values, expected, atol=1e-4)


def test_the_command_predicts(folder, probabilities, tmp_path):
    _register()
    arguments = ["predict", folder / "image.png", "--weights", folder / "run", "--out", tmp_path / "out"]
    arguments += ["--set", "evaluate.base_size=65", "--set", "evaluate.flip=false"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert_labels(np.asarray(Image.open(tmp_path / "out/labels/image.png")), probabilities)


def test_the_command_serves(folder, model, image, probabilities, tmp_path):
    """The network's labels and attention over REST."""
    command = [sys.executable, "-m", "psanet_cli", "serve", folder / "exported", "--rest-port", "0", "--grpc-port", "0"]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 240
        while "Ctrl-C stops" not in (text := (tmp_path / "log").read_text()):
            assert process.poll() is None and time.monotonic() < end, text
            time.sleep(0.1)
        url = re.search(r"REST:  (\S+)", text)[1]
        answer = requests.post(url, json={"instances": image[None].tolist()}, timeout=120).json()
        assert_labels(np.array(answer["predictions"][0]["labels"]), probabilities)
        encoded = {"b64": base64.b64encode((folder / "image.png").read_bytes()).decode()}
        request = {"signature_name": "attention", "inputs": {"image_bytes": [encoded], "points": [[[50, 3]]]}}
        answer = requests.post(url, json=request, timeout=120).json()["outputs"]
        expected = attention_maps(model, image, [(50, 3)])
        np.testing.assert_allclose(answer["collect"][0], expected.collect, atol=1e-5)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.backbone=ConvNextTiny"], "no backbone is called 'ConvNextTiny'; nearest: ConvNeXtTiny"),
        ([*BACKBONE, "train.rematerialize=blocks"], "train.rematerialize is for the ResNet without model.backbone"),
        (["model.backbone=ConvNeXtTiny"], "blocks is of the ResNet without backbone: leave it out beside ConvNeXtTiny"),
        ([*BACKBONE, "model.feature_layers=[a]"], "feature_layers must name two layers"),
        (["model.blocks=null", "model.backbone=mine.keras"], "backbone_preprocessing must say what mine.keras takes"),
        ([*BACKBONE, "model.backbone_preprocessing=tf"], "is for .keras files; that of ConvNeXtTiny is known"),
        (["model.backbone_weights=imagenet"], "backbone_weights is for networks with a backbone"),
        (["model.output_stride=4"], "output_stride must be 8, 16 or 32 without a backbone"),
    ],
)
def test_what_does_not_go_together_is_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(*options)
