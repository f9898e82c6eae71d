"""`Conv2D` takes matrix products where they serve, and stays Keras's layer."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSANet
from psanet_tf.keras_api import keras
from psanet_tf.layers import Conv2D
from psanet_tf.ops import convolution


@pytest.fixture
def few_channels(monkeypatch):
    """Products serve from four channels on, whatever the size and the machine."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])
    monkeypatch.setattr(convolution, "MIN_CHANNELS", 4)
    monkeypatch.setattr(convolution, "MIN_PIXELS", 1)


def operations(layer, inputs):
    trace = tf.function(lambda x: layer(x)).get_concrete_function(inputs)
    return {node.type for node in trace.graph.get_operations()}


@pytest.mark.parametrize("use_bias", [False, True])
def test_outputs_and_weights_are_those_of_keras(few_channels, use_bias):
    layer, stock = (
        of_class(5, 3, padding="same", use_bias=use_bias, activation="relu", data_format="channels_last")
        for of_class in (Conv2D, keras.layers.Conv2D)
    )
    inputs = tf.random.normal([2, 6, 5, 4])
    stock(inputs)
    layer(inputs)
    layer.set_weights([tf.random.normal(weight.shape).numpy() for weight in stock.get_weights()])
    stock.set_weights(layer.get_weights())
    assert "Conv2D" in operations(stock, inputs)
    assert {"Conv2D", "MatMul"} & operations(layer, inputs) == {"MatMul"}
    np.testing.assert_allclose(layer(inputs), stock(inputs), atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"padding": "valid"},
        {"strides": 2},
        {"dilation_rate": 2},
        {"groups": 2},
        {"kernel_size": 5},
        {"dtype": "mixed_bfloat16"},
    ],
)
def test_other_convolutions_are_kerass_own(few_channels, monkeypatch, arguments):
    monkeypatch.setattr("psanet_tf.layers.convolution.sum_of_products", None)
    arguments = {"kernel_size": 3, "padding": "same", **arguments}
    layer = Conv2D(4, data_format="channels_last", **arguments)
    # Traced only: CPUs do not compute all of them.
    assert operations(layer, tf.zeros([1, 9, 9, 8]))


def test_the_networks_heads_train_alike_in_both_forms(few_channels):
    """Four channels are few enough for most 3x3 convolutions of this network."""
    arguments = {"num_classes": 3, "blocks": (1, 1, 1, 1), "width": 4, "input_shape": (33, 25, 3), "dropout": 0.0}
    images = tf.random.normal([2, 33, 25, 3])
    model = PSANet(**arguments)

    def outputs_and_gradients():
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = sum(tf.reduce_mean(tf.square(output)) for output in outputs.values())
        return [*outputs.values(), *tape.gradient(loss, model.trainable_weights)]

    products = outputs_and_gradients()
    with convolution.stock_convolutions():
        stock = outputs_and_gradients()
    for got, wanted in zip(products, stock, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4 * float(tf.reduce_max(tf.abs(wanted))) + 1e-6)


def test_files_name_the_layer_as_kerass(tmp_path):
    """What was written with Keras's layer is read into this one, and back."""
    for source, target in ((keras.layers.Conv2D, Conv2D), (Conv2D, keras.layers.Conv2D)):
        models = []
        for of_class in (source, target):
            inputs = keras.Input([5, 5, 3])
            x = of_class(4, 3, name="first")(inputs)
            models.append(keras.Model(inputs, of_class(2, 1, name="second")(x)))
        models[0].save_weights(tmp_path / "of.weights.h5")
        models[1].load_weights(tmp_path / "of.weights.h5")
        for got, wanted in zip(models[1].get_weights(), models[0].get_weights(), strict=True):
            np.testing.assert_array_equal(got, wanted)
