"""The sliding-window protocol against the original's numbers and a slow, obvious version."""

import math

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.data.normalization import MEAN, STD
from psanet_tf.inference.sliding_window import SlidingWindow


def _toy_network(arrays):
    def predict(crops):
        return tf.nn.conv2d(crops, arrays["kernel"], 1, "SAME") + arrays["bias"] + arrays["position_logits"]

    return predict


@pytest.mark.parametrize("name", ["evaluate_single_scale", "evaluate_multi_scale"])
@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_golden(golden, monkeypatch, name, batch_size):
    # Small bands, so that the seams are tested too.
    monkeypatch.setattr("psanet_tf.inference.sliding_window._BAND_BYTES", 50_000)
    arrays, meta = golden(name)
    window = SlidingWindow(
        _toy_network(arrays),
        meta["classes"],
        meta["crop"],
        base_size=meta["base_size"],
        scales=meta["scales"],
        flip=meta["flip"],
        batch_size=batch_size,
    )
    expected = arrays["probability"]
    np.testing.assert_allclose(window(arrays["image"]), expected, rtol=0, atol=1e-4)
    runner_up, best = np.sort(expected, axis=-1)[..., -2:].transpose(2, 0, 1)
    clear = best - runner_up > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(window.labels(arrays["image"])[clear], arrays["label"][clear])


def _bilinear(array, height, width):
    """Half-pixel bilinear resize of [h, w, c], by the formula."""

    def axis_weights(source, target):
        matrix = np.zeros((target, source))
        for index in range(target):
            position = (index + 0.5) * source / target - 0.5
            low = math.floor(position)
            matrix[index, min(max(low, 0), source - 1)] += 1 - (position - low)
            matrix[index, min(max(low + 1, 0), source - 1)] += position - low
        return matrix

    rows, columns = axis_weights(array.shape[0], height), axis_weights(array.shape[1], width)
    return np.einsum("ab,bcd,ec->aed", rows, array, columns)


def _softmax(logits):
    exponent = np.exp(logits - logits.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


def _reference(predict, classes, crop, base_size, scales, flip, stride_rate, image):
    height, width = image.shape[:2]
    total = np.zeros((height, width, classes))
    for scale in scales:
        long_side = round(scale * base_size)
        new_height = long_side if height > width else round(long_side / width * height)
        new_width = long_side if height <= width else round(long_side / height * width)
        resized = _bilinear(image.astype(float), new_height, new_width)
        full_height, full_width = max(new_height, crop[0]), max(new_width, crop[1])
        top, left = (full_height - new_height) // 2, (full_width - new_width) // 2
        padded = np.tile(MEAN.astype(float), (full_height, full_width, 1))
        padded[top : top + new_height, left : left + new_width] = resized
        sums, counts = np.zeros((full_height, full_width, classes)), np.zeros((full_height, full_width, 1))
        strides = [math.ceil(size * stride_rate) for size in crop]
        for i in range(math.ceil((full_height - crop[0]) / strides[0]) + 1):
            for j in range(math.ceil((full_width - crop[1]) / strides[1]) + 1):
                y, x = min(i * strides[0], full_height - crop[0]), min(j * strides[1], full_width - crop[1])
                one = ((padded[y : y + crop[0], x : x + crop[1]] - MEAN) / STD).astype("float32")[None]
                probability = _softmax(np.asarray(predict(one))[0].astype(float))
                if flip:
                    mirrored = _softmax(np.asarray(predict(one[:, :, ::-1]))[0].astype(float))
                    probability = (probability + mirrored[:, ::-1]) / 2
                sums[y : y + crop[0], x : x + crop[1]] += probability
                counts[y : y + crop[0], x : x + crop[1]] += 1
        cut = (sums / counts)[top : top + new_height, left : left + new_width]
        total += _bilinear(cut, height, width)
    return total / len(scales)


@pytest.mark.parametrize(
    ("size", "crop", "base_size", "scales", "flip", "stride_rate"),
    [
        ((1, 1), (17, 9), 20, (1.0,), True, 2 / 3),
        ((40, 7), (17, 17), 33, (1.0, 2.0), False, 2 / 3),
        ((23, 61), (17, 25), 61, (0.3, 1.0), True, 0.4),
        ((64, 64), (9, 9), 32, (1.5,), True, 1.0),
        ((30, 31), (33, 9), 30, (1.0,), True, 2 / 3),
    ],
)
def test_against_a_slow_version(monkeypatch, size, crop, base_size, scales, flip, stride_rate):
    monkeypatch.setattr("psanet_tf.inference.sliding_window._BAND_BYTES", 2_000)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*size, 3)).astype("uint8")
    arrays = {
        "kernel": generator.normal(size=(3, 3, 3, 4)).astype("float32"),
        "bias": generator.normal(size=4).astype("float32"),
        "position_logits": generator.normal(size=(*crop, 4)).astype("float32"),
    }
    predict = _toy_network(arrays)
    window = SlidingWindow(predict, 4, crop, base_size, scales, flip, stride_rate, batch_size=3)
    probabilities = window(image)
    np.testing.assert_allclose(
        probabilities, _reference(predict, 4, crop, base_size, scales, flip, stride_rate, image), rtol=0, atol=2e-5
    )
    np.testing.assert_array_equal(window.labels(image), probabilities.argmax(-1))


def test_probabilities_sum_to_one_and_batches_are_bounded():
    sizes = []

    def predict(crops):
        sizes.append(crops.shape[0])
        return tf.random.stateless_normal([*crops.shape[:3], 5], [0, 1])

    window = SlidingWindow(predict, 5, (17, 17), base_size=80, batch_size=6)
    probabilities = window(np.zeros((50, 90, 3), "uint8"))
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    assert max(sizes) == 6


def test_bfloat16_logits_are_accepted():
    window = SlidingWindow(lambda crops: tf.cast(crops, tf.bfloat16), 3, (9, 9), base_size=9)
    assert window(np.zeros((9, 9, 3), "uint8")).dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 255}, "num_classes must be 1 to 254"),
        ({"crop_size": (0, 9)}, "crop_size"),
        ({"crop_size": (9,)}, "crop_size"),
        ({"base_size": 0}, "base_size"),
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, -1.0)}, "scales"),
        ({"stride_rate": 0}, "stride_rate"),
        ({"stride_rate": 1.5}, "stride_rate"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SlidingWindow(**{"predict": None, "num_classes": 3, "crop_size": (9, 9), **arguments})


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), "uint8"), np.zeros((4, 4, 4), "uint8"), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), "uint8")],
)
def test_bad_images(image):
    window = SlidingWindow(lambda crops: crops, 3, (9, 9))
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        window.labels(image)


def test_predict_of_the_wrong_shape():
    window = SlidingWindow(lambda crops: crops, 4, (9, 9), base_size=9)
    with pytest.raises(ValueError, match=r"logits of shape \(2, 9, 9, 4\), got \(2, 9, 9, 3\)"):
        window.labels(np.zeros((9, 9, 3), "uint8"))
