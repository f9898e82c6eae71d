"""A network on another backbone through training, prediction, attention and export."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_backbones import set_random_weights, small_convnext

from psanet_tf import attention_maps
from psanet_tf.data import normalize
from psanet_tf.keras_api import keras
from psanet_tf.models import build_model
from psanet_tf.serving.export import export_saved_model
from psanet_tf.training.trainer import train
from psanet_tf.weights.checkpoints import load_trained

BACKBONE = ["model.backbone=ConvNeXtTiny", "model.blocks=null"]


@pytest.fixture
def small_one(monkeypatch):
    monkeypatch.setattr(keras.applications, "ConvNeXtTiny", small_convnext)


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


def test_a_frozen_backbone_of_given_weights_and_one_head(config, small_one, tmp_path):
    backbone = small_convnext(include_top=False, weights=None, input_shape=(65, 65, 3))
    set_random_weights(backbone)
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    options = [f"model.backbone_weights={tmp_path / 'backbone.weights.h5'}", "model.aux_head=false"]
    options += ["train.freeze=[backbone]", "train.epochs=1"]
    result = train(config(*BACKBONE, *options), tmp_path / "run")
    assert np.isfinite(result.position.best_miou)
    trained = load_trained(tmp_path / "run")
    model = trained.model
    assert model.has_backbone and not model.has_aux_head and not model.get_layer("backbone").trainable
    own = {weight.path: np.asarray(weight) for weight in backbone.weights}
    # The others' names count the layers of their kind.
    same = [weight for weight in model.get_layer("backbone").weights if weight.path in own]
    assert len(same) > len(own) / 2
    for weight in same:
        np.testing.assert_array_equal(weight, own[weight.path])
    image = np.random.default_rng(0).integers(0, 256, (33, 33, 3)).astype("uint8")
    Image.fromarray(image).save(tmp_path / "image.png")
    maps = attention_maps(model, image, [(5, 7)])
    assert maps.collect.shape[1:] == maps.placement.map_size
    np.testing.assert_allclose(maps.collect.sum(), 1, atol=1e-4)
    export_saved_model(model, tmp_path / "exported", trained.info, trained.evaluate, warm_up=False)
    signatures = tf.saved_model.load(str(tmp_path / "exported/1")).signatures
    found = signatures["probabilities"](images=image[None])["probabilities"]
    np.testing.assert_allclose(found, tf.nn.softmax(model(normalize(image)[None], training=False)), atol=1e-5)
    png = tf.constant([(tmp_path / "image.png").read_bytes()])
    served = signatures["attention"](image_bytes=png, points=tf.constant([[[5.0, 7.0]]]))
    np.testing.assert_allclose(served["collect"][0], maps.collect, atol=1e-5)


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
