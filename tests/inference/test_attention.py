"""Attention maps: sums, places, and agreement with what the network computes."""

import numpy as np
import pytest
import tensorflow as tf

import psanet_tf
from psanet_tf import PSANet, attention_maps
from psanet_tf.data.normalization import normalize
from psanet_tf.inference.attention import Placement, attention_matrices, grid_points
from psanet_tf.inference.attention_files import attention_sheet, write_attention
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.keras_api import LEGACY_KERAS, keras
from psanet_tf.ops import resize_bilinear


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
    assert placement == Placement((98, 41), (49, 20), (0, 10), (49, 41), (4, 3), (0, 0), (16, 20))
    # The image covers columns 10 to 29 of the input, the map's columns are at 0, 20 and 40.
    assert placement.position(0, 0) == (0, 0)
    assert placement.position(20, 50) == (2, 1)
    assert placement.position(40, 97) == (3, 1)
    heat = placement.to_image(np.ones((2, 4, 3)))
    assert heat.shape == (2, 98, 41)
    np.testing.assert_allclose(heat, 1, atol=1e-6)


def test_heat_lies_where_the_position_is():
    placement = Placement((49, 41), (49, 41), (0, 0), (49, 41), (4, 3), (0, 0), (16, 20))
    for row, column in ((0, 0), (2, 1), (3, 2)):
        maps = np.zeros((1, 4, 3), "float32")
        maps[0, row, column] = 1
        heat = placement.to_image(maps)[0]
        assert np.unravel_index(heat.argmax(), heat.shape) == (16 * row, [0, 20, 40][column])


def patches():
    """A ConvNeXt's strides: patches of patches, without borders."""
    layers = keras.layers
    images = keras.Input((None, None, 3))
    x = layers.Conv2D(2, 4, strides=4)(images)
    x = layers.DepthwiseConv2D(3)(x)
    for _ in range(3):
        x = layers.Conv2D(2, 2, strides=2)(x)
    return keras.Model(images, x)


def poolings():
    """A VGG's strides: windows of three with borders, and poolings of two."""
    stages = [[keras.layers.Conv2D(2, 3, padding="same"), keras.layers.AveragePooling2D(2)] for _ in range(4)]
    return keras.Sequential([keras.Input((None, None, 3)), *(layer for stage in stages for layer in stage)])


def network_on(backbone, input_shape=(97, 89, 3), **arguments):
    """A network whose features are sums, each over what it looks at, with weights alike to either side."""
    for weight in backbone.weights:
        weight.assign(np.full(weight.shape, 1 / 16 if weight.name != "bias" else 0))
    return PSANet(
        **{"num_classes": 3, "width": 2, "mask_size": (15, 15), "input_shape": input_shape, "backbone": backbone},
        **{"backbone_preprocessing": "unit", "aux_head": False, **arguments},
    )


def looked_at(model, size, map_size):
    """(rows, columns) of the input that the map's rows and columns look at: the centres of what the features sum up.

    At the borders, which cut some of it off, as far from the next ones as those from each other.
    """
    layer = model.get_layer("psa")
    inputs = tf.zeros([1, *size, 3])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        features = keras.Model(model.inputs, layer.input)(inputs, training=False)
        aligned = model.variant == "semseg" or all(length % 2 for length in features.shape[1:3])
        seen = tf.reduce_sum(resize_bilinear(features, map_size, aligned), axis=[0, 3])
        by_axis = [[tf.reduce_sum(line) for line in tf.unstack(seen, axis=axis)] for axis in (0, 1)]
    centres = []
    for axis, lines in enumerate(by_axis):
        known = {}
        for index, line in enumerate(lines):
            weight = tf.reduce_sum(abs(tape.gradient(line, inputs)), axis=[0, 2 - axis, 3]).numpy().astype("float64")
            if weight[0] == weight[-1] == 0:
                known[index] = (weight * np.arange(size[axis])).sum() / weight.sum()
        assert len(known) >= 2
        slope, start = np.polyfit(list(known), list(known.values()), 1)
        np.testing.assert_allclose(list(known.values()), [start + slope * index for index in known], atol=1e-4)
        centres.append(start + slope * np.arange(len(lines)))
    return centres


def nearest(centres, coordinate):
    """The index of the nearest centre, or two of them if there is a doubt."""
    distances = abs(centres - coordinate)
    return set(np.flatnonzero(distances < distances.min() + 1e-3))


@pytest.mark.skipif(LEGACY_KERAS, reason="backbones need Keras 3")
@pytest.mark.parametrize(
    ("backbone", "arguments"),
    [
        (patches, {}),
        (poolings, {}),
        (poolings, {"variant": "mmseg"}),  # halves even sizes with half-pixel centres
        (patches, {"shrink_factor": 1, "input_shape": (None, None, 3)}),
    ],
)
def test_points_and_maps_belong_to_where_the_features_look(backbone, arguments):
    """For images of the input's size, of a smaller one and of a larger one."""
    model = network_on(backbone(), **arguments)
    rng = np.random.default_rng(0)
    for height, width in ((97, 89), (76, 70), (150, 120)):
        placement = attention_matrices(model, rng.integers(0, 256, (height, width, 3)).astype("uint8"))[1]
        rows, columns = looked_at(model, placement.input_size, placement.map_size)
        (top, left), resized = placement.offset, placement.resized_size
        y = (np.arange(height) + 0.5) * resized[0] / height - 0.5 + top
        x = (np.arange(width) + 0.5) * resized[1] / width - 0.5 + left
        assert all(placement.position(0, i)[0] in nearest(rows, at) for i, at in enumerate(y))
        assert all(placement.position(j, 0)[1] in nearest(columns, at) for j, at in enumerate(x))
        maps = rng.uniform(size=(1, *placement.map_size)).astype("float32")
        # Linearly between the centres, and as the outermost ones beyond them.
        down = [np.interp(np.arange(placement.input_size[0]), rows, line) for line in maps[0].T]
        full = np.stack([np.interp(np.arange(placement.input_size[1]), columns, line) for line in np.stack(down, 1)])
        expected = tf.image.resize(full[top : top + resized[0], left : left + resized[1], None], (height, width))[
            ..., 0
        ]
        np.testing.assert_allclose(placement.to_image(maps)[0], expected, atol=1e-3)


def test_a_coarser_resnet_looks_at_every_sixteenth_pixel():
    model = _network(input_shape=(95, 97, 3), output_stride=16)
    placement = attention_matrices(model, np.zeros((95, 97, 3), "uint8"))[1]
    # Six rows of features become three: the first, the one between the third and the fourth, the last.
    assert (placement.map_size, placement.first, placement.step) == ((3, 4), (0, 0), (40, 32))


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
