"""Batch normalization folded into the convolutions: same answers, fewer nodes."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSANet
from psanet_tf.export.folding import ParameterPool, fold_batch_norm
from psanet_tf.keras_api import keras
from psanet_tf.layers import BatchNormalization
from psanet_tf.ops import convolution


def fold(model, pool=None, **options):
    pool = ParameterPool() if pool is None else pool
    inference = model.inference()
    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
    trace = tf.function(lambda images: {"logits": inference(images, training=False)}, [spec])
    with convolution.stock_convolutions():
        concrete = trace.get_concrete_function()
    return fold_batch_norm(concrete, pool, **options), pool


def images(batch=2, size=33):
    return np.random.default_rng(1).normal(size=(batch, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def folded(network):
    return fold(network)


@pytest.mark.parametrize("use_psa", [True, False])
def test_answers_stay_the_same(make_network, network, folded, use_psa):
    model = network if use_psa else make_network(use_psa=False)
    graph, pool = folded if use_psa else fold(model)
    expected = model.inference()(images()).numpy()
    answer = tf.function(lambda x: graph(x, pool.read)["logits"])(images()).numpy()
    assert np.abs(answer - expected).max() <= 1e-5 * np.abs(expected).max()


def test_no_normalization_is_left_and_every_convolution_has_one_kernel(network, folded):
    model = network
    graph, pool = folded
    operations = [node.op for node in graph.graph_def.node]
    normalizations = sum("moving_variance" in weight.path for weight in model.inference().weights)
    assert "FusedBatchNormV3" not in operations
    assert operations.count("BiasAdd") == normalizations + 1  # and the classifier's
    inference_kernels = sum(len(weight.shape) == 4 for weight in model.inference().weights)
    assert sum(len(variable.shape) == 4 for variable in pool.values()) == inference_kernels


def test_convolutions_of_many_channels_become_products_on_cpus(network, folded, monkeypatch):
    monkeypatch.setattr(convolution, "MIN_CHANNELS", 512)  # the head's
    graph, pool = fold(network, products=True)
    operations = [node.op for node in graph.graph_def.node]
    stock = [node.op for node in folded[0].graph_def.node]
    assert operations.count("PartitionedCall") == 1
    assert operations.count("Conv2D") == stock.count("Conv2D") - 1
    head = network.get_layer("head_conv").kernel
    assert [variable.shape for variable in pool.values() if len(variable.shape) == 3] == [
        (3, head.shape[2], 3 * head.shape[3])
    ]
    expected = network.inference()(images()).numpy()
    traced = tf.function(lambda x: graph(x, pool.read)["logits"], [tf.TensorSpec([None, 33, 33, 3])])
    assert traced.get_concrete_function().output_shapes.as_list() == [None, 33, 33, 21]
    assert np.abs(traced(images()).numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def test_graphs_of_the_same_weights_share_parameters(network, folded):
    _, pool = folded
    count = len(pool)
    fold(network, pool)
    assert len(pool) == count


def test_bfloat16_parameters_and_dilated_convolutions(network):
    model = network
    narrow = PSANet(**{**model.get_config(), "dtype": "mixed_bfloat16"})
    narrow.set_weights(model.get_weights())
    graph, pool = fold(narrow)
    assert {variable.dtype for variable in pool.values()} == {tf.bfloat16}
    operations = [node.op for node in graph.graph_def.node]
    assert "SpaceToBatchND" not in operations and "BatchToSpaceND" not in operations
    dilations = {tuple(node.attr["dilations"].list.i) for node in graph.graph_def.node if node.op == "Conv2D"}
    assert dilations == {(1, 1, 1, 1), (1, 2, 2, 1), (1, 4, 4, 1)}
    expected = model.inference()(images()).numpy()
    answer = tf.function(lambda x: graph(x, pool.read)["logits"])(images()).numpy()
    # Eight bits of mantissa through some 15 layers.
    assert np.abs(answer - expected).max() <= 0.05 * np.abs(expected).max()


def test_a_normalization_that_follows_no_convolution_stays():
    inputs = keras.Input([5, 5, 3])
    norm = BatchNormalization()
    x = keras.layers.Conv2D(4, 1)(norm(inputs))
    model = keras.Model(inputs, x)
    norm.moving_mean.assign([1.0, 2.0, 3.0])
    trace = tf.function(lambda x: {"logits": model(x, training=False)}, [tf.TensorSpec([None, 5, 5, 3])])
    pool = ParameterPool()
    graph = fold_batch_norm(trace.get_concrete_function(), pool)
    assert "FusedBatchNormV3" in [node.op for node in graph.graph_def.node]
    x = images(size=5)
    np.testing.assert_allclose(tf.function(lambda x: graph(x, pool.read)["logits"])(x), model(x), rtol=1e-5, atol=1e-6)
