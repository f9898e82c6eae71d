"""The sliding window as a graph against the one that defines the protocol."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import SlidingWindow
from psanet_tf.data.normalization import normalize
from psanet_tf.export.graph.whole import GraphWhole, pad_to_stride
from psanet_tf.export.graph.window import GraphWindow
from psanet_tf.export.verification import made_image
from psanet_tf.inference.whole_image import any_size


def graph_labels(labeler, image):
    spec = tf.TensorSpec([None, None, 3], tf.uint8)
    return tf.function(labeler.labels, [spec], autograph=False)(image).numpy()


@pytest.fixture(scope="module")
def predict():
    """Logits of 6 classes that depend on colours and, as padding makes it, on the place in the crop."""
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(3, 3, 3, 6)).astype(np.float32)
    position_logits = generator.normal(size=(33, 33, 6)).astype(np.float32)
    return lambda crops: tf.nn.conv2d(crops, kernel, 1, "SAME") + position_logits


@pytest.mark.parametrize(
    ("size", "arguments"),
    [
        ((90, 131), {"base_size": 60}),
        ((131, 90), {"base_size": 75, "scales": (0.5, 1.0, 1.25), "flip": False}),
        ((64, 64), {"base_size": 61, "stride_rate": 0.5}),
        ((20, 40), {"base_size": 30}),  # smaller than a crop
        ((3, 200), {"base_size": 50}),
    ],
)
def test_labels_are_those_of_the_protocol(predict, size, arguments):
    image = made_image(size, seed=3)
    expected = SlidingWindow(predict, 6, (33, 33), **arguments).labels(image)
    assert len(np.unique(expected)) > 2
    labels = graph_labels(GraphWindow(predict, 6, (33, 33), **arguments), image)
    assert labels.shape == size
    assert (labels == expected).mean() >= 0.999


def test_a_network_of_any_size_sees_the_resized_image_whole(network):
    inference = any_size(network).inference()
    image = made_image((49, 41))  # 8n + 1 and the base size: nothing is resized or padded
    expected = inference(normalize(image)[None])[0].numpy().argmax(-1)
    assert len(np.unique(expected)) > 2
    labels = graph_labels(GraphWhole(inference, network.num_classes, True, 49), image)
    assert (labels == expected).mean() >= 0.999


def test_images_at_their_own_size_have_one_scale(network):
    with pytest.raises(ValueError, match=r"their own size have scale 1 alone, got scales \(0.5, 1.0\)"):
        GraphWhole(network, network.num_classes, True, scales=(0.5, 1.0))


@pytest.mark.parametrize(("length", "padded"), [(1, 9), (9, 9), (10, 17), (17, 17), (18, 25)])
def test_padding_to_the_output_stride(length, padded):
    images = tf.ones([1, length, length, 3])
    result = pad_to_stride(images)
    assert result.shape == (1, padded, padded, 3)
    assert tf.reduce_sum(result) == length * length * 3
