"""PSALayer and PSANet trained with the optimizers, losses and metrics of TensorFlow Addons."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSALayer, PSANet
from psanet_tf.keras_api import LEGACY_KERAS, keras

if keras.__name__ != "keras" or not LEGACY_KERAS:
    pytest.skip("TensorFlow Addons is for the Keras 2 of TensorFlow 2.15", allow_module_level=True)
tfa = pytest.importorskip("tensorflow_addons", reason="needs the extra addons")

EXAMPLES = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "addons.md").read_text(encoding="utf-8"), re.DOTALL
)
RATE, DECAY, STEPS = 0.01, 0.001, 3

# Decay that is not coupled to the rate, and is taken off first.
OPTIMIZERS = {
    "SGDW": lambda: tfa.optimizers.SGDW(DECAY, learning_rate=RATE, momentum=0.9),
    "AdamW": lambda: tfa.optimizers.AdamW(DECAY, learning_rate=RATE),
    "LAMB": lambda: tfa.optimizers.LAMB(learning_rate=RATE, weight_decay=DECAY),
    "MovingAverage": lambda: tfa.optimizers.MovingAverage(keras.optimizers.legacy.SGD(RATE), average_decay=0.5),
}


def expected_sgdw(weights, gradients):
    velocity = 0.0
    for gradient in gradients:
        weights = weights * (1 - DECAY)
        velocity = 0.9 * velocity - RATE * gradient
        weights = weights + velocity
    return weights


def expected_adamw(weights, gradients):
    first = second = 0.0
    for step, gradient in enumerate(gradients, 1):
        weights = weights * (1 - DECAY)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        rate = RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        weights = weights - rate * first / (np.sqrt(second) + 1e-7)
    return weights


def expected_lamb(weights, gradients):
    first = second = 0.0
    for step, gradient in enumerate(gradients, 1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        update = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-6) + DECAY * weights
        weights = weights - RATE * np.linalg.norm(weights) / np.linalg.norm(update) * update
    return weights


def expected_moving_average(weights, gradients):
    average = weights
    for gradient in gradients:
        weights = weights - RATE * gradient
        average = 0.5 * average + 0.5 * weights
    return average


EXPECTED = {
    "SGDW": expected_sgdw,
    "AdamW": expected_adamw,
    "LAMB": expected_lamb,
    "MovingAverage": expected_moving_average,
}


def model_with_the_layer():
    return keras.Sequential(
        [
            keras.Input([9, 7, 3]),
            keras.layers.Conv2D(6, 1, activation="relu"),
            PSALayer(mid_channels=4),
            keras.layers.Conv2D(5, 1, name="classifier"),
        ]
    )


@pytest.fixture
def data():
    return tf.random.normal([2, 9, 7, 3]), tf.random.uniform([2, 9, 7], 0, 5, tf.int32)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizers_train_the_layer_as_their_papers_say(name, data, tmp_path):
    """The mask's kernel after three steps, from the gradients along the way."""
    images, labels = data
    model = model_with_the_layer()
    optimizer = OPTIMIZERS[name]()
    kernel = model.layers[1].collect.mask_conv.kernel
    before, gradients = kernel.numpy(), []
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                keras.losses.sparse_categorical_crossentropy(labels, model(images, training=True), from_logits=True)
            )
        of_all = tape.gradient(loss, model.trainable_variables)
        (position,) = [i for i, weight in enumerate(model.trainable_variables) if weight is kernel]
        gradients.append(of_all[position].numpy())
        optimizer.apply_gradients(zip(of_all, model.trainable_variables, strict=True))
    if name == "MovingAverage":
        optimizer.assign_average_vars(model.trainable_variables)
    assert np.abs(gradients).max() > 0
    np.testing.assert_allclose(kernel, EXPECTED[name](before, gradients), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_models_are_fitted_saved_and_loaded(name, data, tmp_path):
    images, labels = data
    model = model_with_the_layer()
    model.compile(OPTIMIZERS[name](), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit(images, labels, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for file in ("model.keras", "model.h5"):
        model.save(tmp_path / file)
        again = keras.models.load_model(tmp_path / file, compile=False)
        np.testing.assert_array_equal(again(images), model(images))


def test_the_focal_loss_and_metrics_take_the_networks_logits():
    network = PSANet(4, blocks=(1, 1, 1, 1), width=4, input_shape=(17, 17, 3), aux_head=False)
    images, labels = tf.random.normal([2, 17, 17, 3]), np.random.default_rng(0).integers(0, 4, (2, 17, 17))
    true = np.eye(4, dtype="float32")[labels]
    logits = network(images, training=False).numpy().astype("float64")
    focal = tfa.losses.SigmoidFocalCrossEntropy(from_logits=True, alpha=0.25, gamma=2.0)
    probability = 1 / (1 + np.exp(-logits))
    of_truth = np.where(true == 1, probability, 1 - probability)
    wanted = -np.where(true == 1, 0.25, 0.75) * (1 - of_truth) ** 2 * np.log(of_truth)
    np.testing.assert_allclose(focal(true, logits.astype("float32")), wanted.sum(-1), rtol=1e-4)

    network.compile(
        tfa.optimizers.AdamW(1e-4, learning_rate=1e-3),
        tfa.losses.SigmoidFocalCrossEntropy(from_logits=True, reduction="sum_over_batch_size"),
    )
    losses = network.fit(images, true, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]

    predicted = network.predict(images, verbose=0).argmax(-1)
    kappa = tfa.metrics.CohenKappa(4, sparse_labels=True)
    kappa.update_state(labels.ravel(), predicted.ravel())
    confusion = np.histogram2d(labels.ravel(), predicted.ravel(), bins=[range(5)] * 2)[0] / labels.size
    chance = confusion.sum(0) @ confusion.sum(1)
    np.testing.assert_allclose(kappa.result(), (np.trace(confusion) - chance) / (1 - chance), atol=1e-6)
    f1 = tfa.metrics.F1Score(4, average=None)
    f1.update_state(true.reshape(-1, 4), np.eye(4, dtype="float32")[predicted.ravel()])
    both = confusion.sum(0) + confusion.sum(1)
    wanted = np.divide(2 * np.diag(confusion), both, out=np.zeros(4), where=both > 0)
    np.testing.assert_allclose(f1.result(), wanted, atol=1e-6)


def test_the_documented_recipe_runs_and_its_weights_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = EXAMPLES
    names = {}
    exec(example, names)
    losses, model = names["history"]["loss"], names["model"]
    assert len(losses) == 4
    assert losses[-1] < 0.9 * losses[0]
    assert len(names["heads"]) > 5 and len(names["backbone"]) > 20
    again = PSANet(names["num_classes"], blocks=(1, 1, 1, 1), width=8, input_shape=names["images"].shape[1:])
    again.load_weights("scenes.weights.h5")
    images = names["images"][:2]
    np.testing.assert_array_equal(again(images)["logits"], model(images)["logits"])
