"""`ResizeLike`: sizes and configuration; the arithmetic is tested with the op."""

import numpy as np
import pytest

from psanet_tf.keras_api import keras
from psanet_tf.layers import ResizeLike
from psanet_tf.ops import resize_bilinear


@pytest.mark.parametrize(("zoom_factor", "size"), [(8, (33, 17)), (4, (17, 9)), (2, (9, 5)), (1, (5, 3))])
@pytest.mark.parametrize("dynamic", [False, True])
def test_size_follows_the_other_tensor(zoom_factor, size, dynamic):
    features = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype("float32")
    like = np.zeros((2, 33, 17, 3), "float32")
    shapes = ([None, None, 4], [None, None, 3]) if dynamic else (features.shape[1:], like.shape[1:])
    inputs = [keras.Input(shape) for shape in shapes]
    model = keras.Model(inputs, ResizeLike(zoom_factor)(inputs))
    np.testing.assert_allclose(model([features, like]), resize_bilinear(features, size), atol=1e-6)
    assert ResizeLike.from_config(ResizeLike(zoom_factor).get_config()).zoom_factor == zoom_factor


def test_unknown_zoom_factor_is_refused():
    with pytest.raises(ValueError, match="zoom_factor must be 1, 2, 4 or 8, got 3"):
        ResizeLike(3)
