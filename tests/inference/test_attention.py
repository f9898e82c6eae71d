"""Attention maps: sums, places, and agreement with what the network computes."""

import numpy as np
import pytest

import psanet_tf
from psanet_tf import PSANet, attention_maps
from psanet_tf.data.normalization import normalize
from psanet_tf.inference.attention import Placement, attention_matrices, grid_points
from psanet_tf.inference.attention_files import attention_sheet, write_attention
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.keras_api import keras


def _network(seed=3, **arguments):
    keras.utils.set_random_seed(seed)
    return PSANet(5, blocks=(1, 1, 1, 1), width=8, **{"input_shape": (49, 41, 3), **arguments})


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 44, 3)).astype("uint8")


@pytest.fixture(scope="module")
def model():
    return _network()


def _all_positions(placement):
    """A pixel for every position of the attention map of an image that fills the input."""
    rows, columns = placement.map_size
    return [(16 * column, 16 * row) for row in range(rows) for column in range(columns)]


def test_maps_sum_to_one_over_their_sources(model):
    image = np.random.default_rng(1).integers(0, 256, (49, 41, 3)).astype("uint8")
    placement = attention_matrices(model, image)[1]
    assert placement.map_size == (4, 3)
    maps = attention_maps(model, image, _all_positions(placement))
    # Collect: the sources of a point are the positions of its map.
    np.testing.assert_allclose(maps.collect.sum(axis=(1, 2)), 1, atol=1e-5)
    # Distribute: the sources of a position are the points, one map each.
    np.testing.assert_allclose(maps.distribute.sum(axis=0), 1, atol=1e-5)
    assert maps.collect.std() > 1e-4
    assert maps.distribute.std() > 1e-4


def test_maps_are_the_weights_that_the_network_aggregates_with(model):
    image = np.random.default_rng(2).integers(0, 256, (49, 41, 3)).astype("uint8")
    layer = model.get_layer("psa")
    features = keras.Model(model.inputs[0], layer.input)(normalize(image)[None])
    maps = attention_maps(model, image, _all_positions(attention_matrices(model, image)[1]))
    matrices = layer.attention(features)
    np.testing.assert_allclose(maps.collect.reshape(12, 12), matrices["collect"][0], atol=1e-6)
    np.testing.assert_allclose(maps.distribute.reshape(12, 12).T, matrices["distribute"][0], atol=1e-6)


def test_without_softmax_maps_need_not_sum_to_one(image):
    maps = attention_maps(_network(psa_softmax=False), image, [(5, 5)])
    assert abs(maps.collect.sum() - 1) > 1e-3


@pytest.mark.parametrize("psa_type", ["collect", "distribute"])
def test_one_direction_only(image, psa_type):
    maps = attention_maps(_network(psa_type=psa_type), image, [(5, 5), (1, 2)])
    assert list(maps.directions()) == [psa_type]
    assert maps.directions()[psa_type].shape == (2, 4, 3)


def test_large_images_are_reduced_to_fit_and_padded_about_the_middle(model):
    placement = attention_matrices(model, np.zeros((98, 41, 3), "uint8"))[1]
    assert placement == Placement((98, 41), (49, 20), (0, 10), (49, 41), (4, 3))
    # The image covers columns 10 to 29 of the input, the map's columns are at 0, 20 and 40.
    assert placement.position(0, 0) == (0, 0)
    assert placement.position(20, 50) == (2, 1)
    assert placement.position(40, 97) == (3, 1)
    heat = placement.to_image(np.ones((2, 4, 3)))
    assert heat.shape == (2, 98, 41)
    np.testing.assert_allclose(heat, 1, atol=1e-6)


def test_heat_lies_where_the_position_is():
    placement = Placement((49, 41), (49, 41), (0, 0), (49, 41), (4, 3))
    for row, column in ((0, 0), (2, 1), (3, 2)):
        maps = np.zeros((1, 4, 3), "float32")
        maps[0, row, column] = 1
        heat = placement.to_image(maps)[0]
        assert np.unravel_index(heat.argmax(), heat.shape) == (16 * row, [0, 20, 40][column])


def test_a_network_of_any_size_sees_the_image_at_its_own_size():
    model = _network(input_shape=(None, None, 3), mask_size=(7, 7))
    maps = attention_maps(model, np.zeros((60, 44, 3), "uint8"), [(43, 59)])
    assert maps.placement.input_size == (65, 49)
    assert maps.collect.shape == (1, 5, 4)


def test_errors(model, image):
    with pytest.raises(ValueError, match="at least one point"):
        attention_maps(model, image, [])
    with pytest.raises(ValueError, match="point 44,5 lies outside of the image: x must be below 44, y below 60"):
        attention_maps(model, image, [(44, 5)])
    with pytest.raises(ValueError, match="has no attention"):
        attention_maps(_network(use_psa=False), image, [(1, 1)])
    with pytest.raises(ValueError, match="uint8"):
        attention_maps(model, image.astype("float32"), [(1, 1)])


def test_grid_points_are_the_middles_of_cells():
    assert grid_points((20, 30), 2, 3) == ((5, 5), (15, 5), (25, 5), (5, 15), (15, 15), (25, 15))


def test_sheet_and_page(model, image, tmp_path):
    from PIL import Image

    Image.fromarray(image).save(tmp_path / "image.png")
    sheet, page = write_attention(Segmenter(model, whole=True), tmp_path / "image.png", tmp_path / "out", grid=True)
    assert Image.open(sheet).width > 3 * 480
    assert "image: hover or touch a point" in page.read_text()
    with pytest.raises(ValueError, match="either points"):
        write_attention(Segmenter(model, whole=True), tmp_path / "image.png", tmp_path / "out")
    one = attention_sheet(image, attention_maps(model, image, [(3, 4)]))
    assert one.shape[1] == 3 * (480 + 8) + 8


def test_public_name():
    assert psanet_tf.attention_maps is attention_maps
