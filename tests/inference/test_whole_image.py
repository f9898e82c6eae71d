"""Images in one pass at their own size."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSANet
from psanet_tf.data.normalization import normalize
from psanet_tf.export.graph.whole import GraphWhole
from psanet_tf.inference.whole_image import ScaledImage, WholeImage, any_size, padded_length


def _network(**arguments):
    return PSANet(5, blocks=(1, 1, 1, 1), width=8, **{"input_shape": (41, 41, 3), **arguments})


@pytest.fixture(scope="module")
def psanet():
    return _network()


@pytest.fixture(scope="module")
def whole(psanet):
    return any_size(psanet)


def test_padded_lengths_are_the_next_8n_plus_1():
    assert [padded_length(length) for length in (1, 9, 10, 17, 512, 683)] == [9, 9, 17, 17, 513, 689]


@pytest.mark.parametrize("use_psa", [True, False])
def test_any_size_computes_the_same(psanet, whole, use_psa):
    model = psanet if use_psa else _network(use_psa=False)
    copy = whole if use_psa else any_size(model)
    image = np.random.default_rng(0).normal(size=(1, 41, 41, 3)).astype("float32")
    np.testing.assert_allclose(copy(image)["logits"], model(image)["logits"], rtol=0, atol=1e-5)
    assert copy(image[:, :33, :17])["logits"].shape == (1, 33, 17, 5)
    assert any_size(copy) is copy


def test_compact_attention_works_at_one_size_only():
    with pytest.raises(ValueError, match="compact attention works only at the size it was built for, 41x41"):
        any_size(_network(compact=True))


@pytest.mark.parametrize("size", [(1, 1), (40, 57), (41, 41)])
def test_labels_are_those_of_the_padded_image(whole, size):
    inference = whole.inference()
    image = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype("uint8")
    labeler = WholeImage(inference, 5)
    height, width = (padded_length(length) for length in size)
    padded = np.zeros((1, height, width, 3), "float32")
    padded[0, : size[0], : size[1]] = normalize(image)
    expected = tf.nn.softmax(inference(padded))[0, : size[0], : size[1]]
    np.testing.assert_allclose(labeler(image), expected, atol=1e-5)
    np.testing.assert_array_equal(labeler.labels(image), np.argmax(expected, -1))


def test_predict_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"logits of shape \(1, 9, 9, 4\)"):
        WholeImage(lambda images: images, 4).labels(np.zeros((9, 9, 3), "uint8"))


@pytest.mark.parametrize("flip", [False, True])
def test_resized_images_are_labelled_as_by_an_exports_graph(flip):
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(3, 3, 3, 6)).astype("float32")

    def predict(images):
        place = tf.linspace(-1.0, 1.0, tf.shape(images)[1])[:, None, None] * tf.linspace(-1.0, 1.0, 6)
        return tf.nn.conv2d(images, kernel, 1, "SAME") + place

    image = generator.integers(0, 256, (44, 61, 3)).astype("uint8")
    labeler = ScaledImage(predict, 6, 50, (0.5, 1.25), flip)
    probabilities = labeler(image)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    graph = GraphWhole(predict, 6, False, 50, (0.5, 1.25), flip)
    expected = tf.function(graph.labels, [tf.TensorSpec([None, None, 3], tf.uint8)], autograph=False)(image).numpy()
    assert (labeler.labels(image) == expected).mean() > 0.999
    rows, columns = np.array([0, 43, 20]), np.array([60, 0, 33])
    found = labeler.pixel_logits(image, rows, columns).probabilities()
    np.testing.assert_allclose(found, probabilities[rows, columns], atol=1e-5)
