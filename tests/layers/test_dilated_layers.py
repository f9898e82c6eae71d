"""Layers that stand in for strided ones: pooling with gaps, depthwise convolutions; logits put where features look."""

import numpy as np
import pytest

from psanet_tf.keras_api import keras
from psanet_tf.layers import Conv2D, ResizeLike
from psanet_tf.layers.dilated_pooling import DilatedAveragePooling2D, DilatedMaxPooling2D

X = (np.random.default_rng(0).normal(size=(2, 13, 11, 3)) - 2).astype("float32")  # mostly negative


KINDS = {"MaxPooling2D": DilatedMaxPooling2D, "AveragePooling2D": DilatedAveragePooling2D}


@pytest.mark.parametrize("plain", KINDS)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("size", "rate"), [((3, 3), 2), ((2, 3), 3), ((1, 1), 4)])
def test_pooling_with_gaps_is_the_plain_one_of_every_phase(plain, padding, size, rate):
    kind = KINDS[plain]
    found = np.asarray(kind(size, rate, padding)(X))
    reference = getattr(keras.layers, plain)(size, 1, padding)
    assert found.shape == kind(size, rate, padding).compute_output_shape(X.shape)
    for row in range(rate):
        for column in range(rate):
            expected = np.asarray(reference(X[:, row::rate, column::rate]))
            np.testing.assert_allclose(found[:, row::rate, column::rate], expected, atol=1e-6)


def test_pooling_comes_back_from_its_configuration_and_checks_arguments():
    layer = DilatedMaxPooling2D((3, 2), 2, "same", name="pool")
    copy = DilatedMaxPooling2D.from_config(layer.get_config())
    np.testing.assert_array_equal(copy(X), layer(X))
    with pytest.raises(ValueError, match="dilation_rate must be a positive integer, got 0"):
        DilatedMaxPooling2D((3, 3), 0)
    with pytest.raises(ValueError, match="padding must be one of 'same', 'valid'"):
        DilatedMaxPooling2D((3, 3), 2, "causal")


@pytest.mark.parametrize(
    "arguments", [{}, {"strides": 2}, {"dilation_rate": 2}, {"padding": "valid", "use_bias": False}]
)
def test_one_group_per_channel_is_a_depthwise_convolution(arguments):
    arguments = {"padding": "same"} | arguments
    layer = Conv2D(3, 3, groups=3, **arguments)
    reference = keras.layers.DepthwiseConv2D(3, **arguments)
    found = layer(X)
    reference.build(X.shape)
    kernel, *bias = layer.get_weights()
    reference.set_weights([kernel.transpose(0, 1, 3, 2), *bias])
    np.testing.assert_allclose(found, reference(X), atol=1e-5)


@pytest.mark.parametrize(("grid", "zoom"), [((4, 2.5, -1), 8), ((4, 0, 0), 8), ((8, 3.5, 3.5), 2)])
def test_features_are_put_where_they_look(grid, zoom):
    stride, *offset = grid
    like = np.zeros((1, 33, 41, 1), "float32")
    found = np.asarray(ResizeLike(zoom, grid=grid)([X[:1], like]))
    step = 8 // zoom
    rows, columns = (range(0, length, step) for length in like.shape[1:3])
    assert found.shape == (1, len(rows), len(columns), 3)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            at = [
                np.clip((pixel - first) / stride, 0, length - 1)
                for pixel, first, length in zip((row, column), offset, X.shape[1:3], strict=True)
            ]
            low = [min(int(place), length - 2) for place, length in zip(at, X.shape[1:3], strict=True)]
            (a, b), (y, x) = low, [place - base for place, base in zip(at, low, strict=True)]
            corner = X[0, a : a + 2, b : b + 2]
            expected = (1 - y) * ((1 - x) * corner[0, 0] + x * corner[0, 1]) + y * (
                (1 - x) * corner[1, 0] + x * corner[1, 1]
            )
            np.testing.assert_allclose(found[0, i, j], expected, atol=1e-5)


def test_a_grid_that_covers_the_image_aligns_corners():
    like = np.zeros((1, 49, 41, 1), "float32")
    np.testing.assert_array_equal(ResizeLike(grid=(4, 0, 0))([X[:1], like]), ResizeLike()([X[:1], like]))
    layer = ResizeLike(grid=(4, 1.5, 0))
    assert ResizeLike.from_config(layer.get_config()).grid == (4, 1.5, 0)
    with pytest.raises(ValueError, match="grid must be \\(stride, row, column\\) or None"):
        ResizeLike(grid=(4, 0))
