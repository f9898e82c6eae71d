"""Layers that a training leaves as they are."""

import pytest

from psanet_tf import PSANet, freeze_batch_norm
from psanet_tf.config import Config, DataSection, ModelSection, TrainSection
from psanet_tf.layers import BatchNormalization
from psanet_tf.training.freezing import freeze


@pytest.fixture
def model():
    return PSANet(3, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 33, 3))


def trainable(model):
    return {layer.name for layer in model.layers if layer.trainable_weights}


def test_the_backbone_or_layers_by_pattern(model):
    everything = trainable(model)
    freeze(model, [])
    assert trainable(model) == everything
    freeze(model, ["backbone"])
    left = {name for name in everything if name.startswith(("psa", "head_", "aux_"))}
    assert trainable(model) == left and len(everything) > len(left) > 5
    freeze(model, ["aux_*", "psa"])
    assert trainable(model) == {name for name in left if name.startswith("head_")}


def test_a_pattern_that_fits_nothing(model):
    with pytest.raises(ValueError, match=r"train.freeze: no layer's name fits 'bakbone'; .* for instance backbone"):
        freeze(model, ["bakbone"])


def test_batch_normalization(model):
    freeze_batch_norm(model)
    kinds = {type(layer) for layer in model._flatten_layers() if not layer.trainable}
    assert kinds == {BatchNormalization}


def test_random_weights_are_not_frozen():
    data = DataSection(dataset="scenes", root="scenes")
    with pytest.raises(ValueError, match="train.freeze needs init, or model.backbone_weights"):
        Config(data=data, train=TrainSection(freeze=("backbone",)))
    with pytest.raises(ValueError, match="train.freeze_batch_norm needs init, or model.backbone_weights"):
        Config(data=data, train=TrainSection(freeze_batch_norm=True))
    Config(
        data=data,
        model=ModelSection(backbone="ResNet50", backbone_weights="imagenet"),
        train=TrainSection(freeze=("backbone",)),
    )
