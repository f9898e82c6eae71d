"""Freezing a `PSALayer`, whole or in part: before it is built, in files, configurations and clones."""

import numpy as np
import pytest

from psanet_tf import PSALayer
from psanet_tf.keras_api import keras

X = np.random.default_rng(0).normal(size=(2, 9, 7, 6)).astype("float32")


def model_of(layer):
    return keras.Sequential([keras.Input([9, 7, 6]), layer])


def flags(layer):
    """{path: `trainable`} of all that the layer holds: collect, distribute, proj_* and what is in them."""
    found = {}
    for name in ("collect", "distribute", "proj_conv", "proj_bn"):
        found[name] = getattr(layer, name).trainable
    for direction in ("collect", "distribute"):
        for name in ("reduce_conv", "reduce_bn", "attention_conv", "attention_bn", "mask_conv"):
            found[f"{direction}/{name}"] = getattr(getattr(layer, direction), name).trainable
    return found


def perturb(model):
    rng = np.random.default_rng(3)
    model.set_weights([w + rng.uniform(0.1, 0.3, w.shape).astype(w.dtype) for w in model.get_weights()])


def frozen():
    layer = PSALayer(mid_channels=4, trainable=False)
    return model_of(layer)


def frozen_later():
    model = model_of(PSALayer(mid_channels=4))
    model.layers[-1].trainable = False
    return model


def partly_frozen():
    model = model_of(PSALayer(mid_channels=4))
    layer = model.layers[-1]
    for sublayer in (layer.collect.reduce_bn, layer.distribute.mask_conv, layer.proj_bn):
        sublayer.trainable = False
    return model


def one_direction_frozen():
    model = model_of(PSALayer(mid_channels=4))
    model.layers[-1].distribute.trainable = False
    return model


def a_frozen_direction_but_for_one():
    model = one_direction_frozen()
    model.layers[-1].distribute.attention_bn.trainable = True
    return model


def all_but_one_frozen():
    model = model_of(PSALayer(mid_channels=4, trainable=False))
    model.layers[-1].proj_bn.trainable = True
    return model


MAKERS = [
    frozen,
    frozen_later,
    partly_frozen,
    one_direction_frozen,
    a_frozen_direction_but_for_one,
    all_but_one_frozen,
]


def through_a_configuration(model, tmp_path):
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def through_a_clone(model, tmp_path):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def through_two_files(model, tmp_path):
    """What the first file loses, the second one cannot bring back."""
    for name in ("one.keras", "two.keras"):
        model.save(tmp_path / name)
        model = keras.saving.load_model(tmp_path / name, compile=False)
    return model


@pytest.mark.parametrize("way", [through_two_files, through_a_configuration, through_a_clone])
@pytest.mark.parametrize("make", MAKERS)
def test_flags_come_back(make, way, tmp_path):
    model = make()
    perturb(model)
    restored = way(model, tmp_path)
    layer, other = model.layers[-1], restored.layers[-1]
    assert other.trainable == layer.trainable
    assert flags(other) == flags(layer)
    assert len(other.trainable_weights) == len(layer.trainable_weights)
    for value, expected in zip(restored.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)
    # With training=True the outputs tell which normalizations use the batch's statistics.
    np.testing.assert_array_equal(restored(X, training=True), model(X, training=True))


def test_a_layer_frozen_before_it_is_built_keeps_its_statistics():
    layer = PSALayer(mid_channels=8, trainable=False)
    layer.build(X.shape)
    before = layer.get_weights()
    layer(X, training=True)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not layer.trainable_weights
    layer.trainable = True
    assert all(flags(layer).values())
    trained = PSALayer(mid_channels=8)
    trained.build(X.shape)
    assert len(layer.trainable_weights) == len(trained.trainable_weights) > 0


def test_a_configuration_of_a_layer_that_is_not_built_keeps_the_flags():
    config = partly_frozen().layers[-1].get_config()
    assert config["sublayers_trainable"] == {
        "collect/reduce_bn": False,
        "distribute/mask_conv": False,
        "proj_bn": False,
    }
    layer = PSALayer.from_config(config)
    assert layer.get_config() == config
    layer(X)
    assert layer.get_config() == config
