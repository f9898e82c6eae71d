"""Networks of other output strides and of one output."""

import numpy as np
import pytest

from psanet_tf import PSANet, freeze_batch_norm
from psanet_tf.keras_api import LEGACY_KERAS, keras

SMALL = {"num_classes": 3, "blocks": (1, 1, 2, 2), "width": 4, "input_shape": (65, 65, 3)}


def features_of(model):
    return keras.Model(model.inputs[0], [model.get_layer("aux_conv").input, model.get_layer("psa").input])


def test_coarser_strides_give_the_samples_of_the_finer_ones():
    x = np.random.default_rng(0).normal(size=(1, 65, 65, 3)).astype("float32")
    # Of the mmseg variant, whose first dilated blocks are what the strided ones would be.
    fine = PSANet(**SMALL, variant="mmseg")
    aux, main = (np.asarray(value) for value in features_of(fine)(x, training=False))
    for stride in (16, 32):
        model = PSANet(**SMALL, variant="mmseg", output_stride=stride)
        for layer in model.layers:
            if layer.name.startswith(("stem", "layer")) and layer.weights:
                layer.set_weights(fine.get_layer(layer.name).get_weights())
        coarse_aux, coarse_main = features_of(model)(x, training=False)
        np.testing.assert_allclose(coarse_aux, aux[:, ::2, ::2], atol=1e-5 * abs(aux).max())
        np.testing.assert_allclose(coarse_main, main[:, :: stride // 8, :: stride // 8], atol=1e-5 * abs(main).max())
        assert model.feature_size() == tuple(coarse_main.shape[1:3])
        assert model(x)["logits"].shape == (1, 65, 65, 3)
        copy = PSANet.from_config(model.get_config())
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(copy(x)["logits"], model(x)["logits"])


def test_a_network_of_one_output_is_trained_and_scored_as_keras_does(tmp_path):
    model = PSANet(**SMALL | {"blocks": (1, 1, 1, 1), "input_shape": (33, 33, 3)}, aux_head=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], run_eagerly=True)
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(2, 33, 33, 3)).astype("float32"), rng.integers(0, 3, (2, 33, 33))
    history = model.fit(images, labels, verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    _, accuracy = model.evaluate(images, labels, verbose=0)
    logits = np.asarray(model.predict(images, verbose=0))
    assert logits.shape == (2, 33, 33, 3)
    assert accuracy == pytest.approx((logits.argmax(-1) == labels).mean(), abs=1e-5)
    np.testing.assert_array_equal(model.inference()(images), model(images, training=False))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is PSANet and not loaded.has_aux_head
    np.testing.assert_array_equal(loaded(images), model(images))
    assert type(keras.models.clone_model(model)) is PSANet


@pytest.mark.any_keras
def test_without_the_auxiliary_head_all_else_is_the_same():
    names = {layer.name for layer in PSANet(**SMALL).layers}
    assert {layer.name for layer in PSANet(**SMALL, aux_head=False).layers} == {
        name for name in names if not name.startswith("aux")
    }


def test_batch_normalization_is_frozen_in_any_model():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)])
    model = keras.Sequential([keras.Input((4,)), inner, keras.layers.BatchNormalization()])
    freeze_batch_norm(model)
    x = np.random.default_rng(0).normal(3, 2, size=(8, 4)).astype("float32")
    np.testing.assert_array_equal(model(x, training=True), model(x, training=False))
    assert len(model.trainable_weights) == 2


@pytest.mark.skipif(not LEGACY_KERAS, reason="Keras 3 takes backbones")
def test_legacy_keras_takes_no_backbone():
    with pytest.raises(ImportError, match=r"^backbone \(without it .*\) needs Keras 3"):
        PSANet(3, backbone="ResNet50")
