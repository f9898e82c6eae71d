"""The images for TensorBoard: a graph, one image at a time."""

import types

import numpy as np
import tensorflow as tf

from psanet_tf.data.catalog import dataset_info
from psanet_tf.keras_api import keras
from psanet_tf.training.tensorboard import TensorBoard


def test_the_model_is_called_in_a_graph_on_one_image_at_a_time(tmp_path):
    calls = []

    class Network(keras.Model):
        def call(self, images, training=None):
            calls.append((tf.executing_eagerly(), images.shape[0]))
            return {"logits": tf.one_hot(tf.argmax(images, axis=-1), 5)}

    info = dataset_info("scenes")
    rng = np.random.default_rng(0)
    images = rng.normal(size=(6, 17, 17, 3)).astype(np.float32)
    labels = rng.integers(0, info.num_classes, (6, 17, 17)).astype(np.uint8)
    dataset = tf.data.Dataset.from_tensor_slices((images, {"logits": labels})).batch(3)
    callback = TensorBoard(tmp_path, None, info, lambda: dataset, 8)
    model = Network()
    model.optimizer = types.SimpleNamespace(averages=None)
    callback.set_model(model)
    drawn = callback._images()
    np.testing.assert_array_equal(drawn[:, :, 17:34], info.colors[labels[:4]])
    np.testing.assert_array_equal(drawn[:, :, 34:], info.colors[np.argmax(images[:4], axis=-1)])
    assert calls and not any(eagerly for eagerly, _ in calls)
    assert {count for _, count in calls} == {1}
