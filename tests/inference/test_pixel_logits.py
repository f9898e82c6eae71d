"""The logits that single pixels' probabilities come from, against the protocols that average them."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import SlidingWindow
from psanet_tf.export.verification import made_image
from psanet_tf.inference import pixel_logits as pixel_logits_module
from psanet_tf.inference.mmseg_protocol import MMSegProtocol
from psanet_tf.inference.pixel_logits import PixelLogits
from psanet_tf.inference.whole_image import WholeImage

CLASSES = 5


@pytest.fixture(scope="module")
def predict():
    """Logits that depend on colours and on the place in the crop, so that overlapping crops differ."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, CLASSES)).astype(np.float32)

    def logits(crops):
        height, width = crops.shape[1:3]
        down, across = tf.linspace(-1.0, 1.0, height)[:, None], tf.linspace(-1.0, 1.0, width)[None]
        return 2 * tf.nn.conv2d(crops, kernel, 1, "SAME") + (down + 2 * across)[..., None] * tf.linspace(-1.0, 1.0, 5)

    return logits


SLIDE = {"scale": (90, 60), "crop_size": (40, 33), "stride": (27, 22)}
PROTOCOLS = [
    ((90, 131), lambda predict: SlidingWindow(predict, CLASSES, (33, 33), base_size=60)),
    ((37, 52), lambda predict: SlidingWindow(predict, CLASSES, (33, 33), base_size=52, flip=False)),
    (
        (50, 40),
        lambda predict: SlidingWindow(
            predict, CLASSES, (33, 41), base_size=64, scales=(0.5, 1.25), stride_rate=0.4, batch_size=6
        ),
    ),
    ((3, 60), lambda predict: SlidingWindow(predict, CLASSES, (33, 33), base_size=50)),
    ((30, 41), lambda predict: WholeImage(predict, CLASSES)),
    ((50, 71), lambda predict: MMSegProtocol(predict, CLASSES, (90, 60), align_corners=True)),
    ((60, 47), lambda predict: MMSegProtocol(predict, CLASSES, **SLIDE, scales=(0.5, 1.3), flip=True)),
]


@pytest.mark.parametrize(("size", "build"), PROTOCOLS)
def test_probabilities_are_the_protocols_at_every_temperature(predict, size, build, monkeypatch):
    monkeypatch.setattr(pixel_logits_module, "_BLOCK_BYTES", 50 * 4 * CLASSES)  # several blocks
    image = made_image(size, seed=3)
    generator = np.random.default_rng(1)
    rows, columns = (np.append(generator.integers(0, length, 40), [0, length - 1]) for length in size)
    found = build(predict).pixel_logits(image, rows, columns)
    assert len(found) == len(rows)
    np.testing.assert_allclose(np.add.reduceat(found.weights, found.starts), 1, atol=1e-6)
    assert (found.weights > 0).all()
    for temperature in (1.0, 0.3, 4.0):
        expected = build(lambda crops, t=temperature: predict(crops) / t)(image)[rows, columns]
        np.testing.assert_allclose(found.probabilities(temperature), expected, atol=2e-5)
    labels = generator.integers(0, CLASSES, len(rows))
    likelihood = np.log(expected[np.arange(len(rows)), labels].astype(np.float64)).mean()
    assert found.log_likelihood(labels, temperature) == pytest.approx(likelihood, rel=1e-4)


@pytest.mark.parametrize(("batch_size", "flip", "largest"), [(1, True, 2), (6, True, 6), (7, True, 6), (5, False, 5)])
def test_as_many_crops_at_a_time_as_the_protocol_takes(predict, batch_size, flip, largest):
    batches = []

    def recorded(crops):
        batches.append(len(crops))
        return predict(crops)

    image = made_image((60, 90), seed=3)
    rows, columns = (axis.ravel() for axis in np.mgrid[:60:7, :90:7])
    arguments = {"base_size": 90, "flip": flip, "batch_size": batch_size}
    found = SlidingWindow(recorded, CLASSES, (33, 33), **arguments).pixel_logits(image, rows, columns)
    crops = 3 * 4  # at a distance of 22
    assert sum(batches) == crops * (2 if flip else 1)
    assert max(batches) == largest and len(batches) == -(-sum(batches) // largest)
    expected = SlidingWindow(predict, CLASSES, (33, 33), **arguments)(image)[rows, columns]
    np.testing.assert_allclose(found.probabilities(), expected, atol=2e-5)


def test_parts_are_joined_in_their_order(predict):
    image = made_image((40, 52), seed=1)
    window = SlidingWindow(predict, CLASSES, (33, 33), base_size=47)
    rows, columns = np.array([3, 39, 20]), np.array([51, 0, 17])
    parts = [window.pixel_logits(image, rows[part], columns[part]) for part in (slice(0, 1), slice(1, 3))]
    joined, whole = PixelLogits.joined(parts), window.pixel_logits(image, rows, columns)
    np.testing.assert_allclose(joined.probabilities(2.0), whole.probabilities(2.0), atol=1e-6)


def test_the_likelihood_of_what_is_next_to_impossible_is_a_number():
    logits = PixelLogits(np.array([[0, 800.0], [0, 900]], np.float32), np.array([0.5, 0.5], np.float32), np.array([0]))
    assert logits.log_likelihood(np.array([0]), 1.0) == pytest.approx(np.log(0.5) - 800)


def test_uncertainty_and_confidence_are_of_the_probabilities(predict):
    image = made_image((40, 52), seed=1)
    window = SlidingWindow(predict, CLASSES, (33, 33), base_size=47)
    probabilities = window(image)
    labels, confidence = window.labels_and_confidence(image)
    np.testing.assert_array_equal(labels, window.labels(image))
    np.testing.assert_array_equal(confidence, window.confidence(image))
    np.testing.assert_array_equal(confidence, probabilities.max(-1))
    unsure = window.uncertainty(image)
    np.testing.assert_array_equal(unsure.labels, labels)
    second, first = np.sort(probabilities, -1)[..., -2:].transpose(2, 0, 1)
    np.testing.assert_allclose(unsure.margin, 1 - (first - second), atol=1e-6)
    entropy = -(probabilities * np.log(probabilities)).sum(-1) / np.log(CLASSES)
    np.testing.assert_allclose(unsure.entropy, entropy, atol=1e-5)
