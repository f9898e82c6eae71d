"""`PSANet.rematerialize`: the same training, without what is inside the blocks. (Two replicas: test_distribution.)"""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from psanet_tf import PSANet
from psanet_tf.keras_api import keras
from psanet_tf.layers import BatchNormalization
from psanet_tf.models.rematerialization import recomputed

pytestmark = [pytest.mark.any_keras, pytest.mark.optimized_graphs]

BLOCKS = (2, 1, 1, 1)
CONVOLUTIONS_OF_BLOCKS = 3 * sum(BLOCKS) + 4  # each stage begins with one on the shortcut


def network(rematerialize):
    keras.utils.set_random_seed(5)
    model = PSANet(3, blocks=BLOCKS, width=4, input_shape=(17, 17, 3), use_psa=False, dropout=0.0, dtype="float64")
    model.rematerialize = rematerialize
    return model


def step(model, images, jit_compile=False):
    """Outputs, gradients of the trainable weights, and weights of batch statistics after one pass in training."""
    variables = [weight.value for weight in model.trainable_weights]

    @tf.function(jit_compile=jit_compile, autograph=False)
    def differentiate(images):
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(model(images, training=True))
            loss = tf.add_n([tf.reduce_mean(tf.square(output)) for output in outputs])
        return outputs, tape.gradient(loss, variables)

    results = differentiate(tf.constant(images))
    return [*tf.nest.flatten(results), *(np.array(weight) for weight in model.non_trainable_weights)]


def assert_same(ones, others):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_a_training_step_is_the_same_and_both_passes_are_run():
    images = np.random.default_rng(1).normal(size=(2, 17, 17, 3))
    results, convolutions = [], []
    for rematerialize in (False, True):
        model = network(rematerialize)
        assert model.rematerialize == rematerialize
        context.enable_run_metadata()
        try:
            results.append(step(model, images))
            graphs = context.export_run_metadata().partition_graphs
        finally:
            context.disable_run_metadata()
        # Of the graphs that were run: TensorFlow's optimizer makes one of two passes that it finds to be equal.
        nodes = [node.op for graph in graphs for node in graph.node]
        convolutions.append(sum("Conv2D" in op and "Backprop" not in op for op in nodes))
    assert_same(*results)
    assert convolutions[1] == convolutions[0] + CONVOLUTIONS_OF_BLOCKS


class Block(keras.Model):
    def __init__(self, forget):
        super().__init__()
        self.forget = forget
        inputs = keras.Input([5, 4, 3], dtype="float64")
        outputs = keras.layers.Conv2D(3, 3, padding="same", dtype="float64")(inputs)
        outputs = BatchNormalization(dtype="float64")(outputs)
        self.block = keras.Model(inputs, keras.layers.ReLU(dtype="float64")(outputs))

    def call(self, x, training=None):
        for _ in range(2):
            x = recomputed(self.block, x, training) if self.forget else self.block(x, training=training)
        return x


@pytest.mark.parametrize(("jit_compile", "trainable"), [(True, True), (False, False)])
def test_one_block_inside_xla_and_frozen(jit_compile, trainable):
    images = np.random.default_rng(1).normal(size=(2, 5, 4, 3))
    results = []
    for forget in (False, True):
        keras.utils.set_random_seed(5)
        model = Block(forget)
        model.block.layers[1].trainable = trainable
        results.append(step(model, images, jit_compile))
    assert_same(*results)


def test_files_do_not_know_of_it(tmp_path):
    model = network(rematerialize=True)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert not restored.rematerialize
    assert len(restored.weights) == len(model.weights)
    images = np.ones([1, 17, 17, 3])
    for name, logits in restored(images).items():
        np.testing.assert_allclose(model(images)[name], logits, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="rematerialize must be True or False, got 'blocks'"):
        model.rematerialize = "blocks"
