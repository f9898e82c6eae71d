"""`PSALayer(variant="mmseg")`: its resizes, its border and its even masks, against a slow reference."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSALayer
from psanet_tf.keras_api import keras


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def made(**arguments):
    layer = PSALayer(mid_channels=4, variant="mmseg", **{"mask_size": (4, 6), **arguments})
    layer.build((None, None, None, 3))
    rng = np.random.default_rng(11)
    layer.set_weights([w + rng.uniform(0.1, 0.3, w.shape).astype(w.dtype) for w in layer.get_weights()])
    return layer


def resize(x, size, align_corners):
    """[H, W, C] in float64, one output at a time."""
    out = np.empty((*size, x.shape[2]))
    for i in range(size[0]):
        for j in range(size[1]):
            weights = []
            for target, length, before in ((i, size[0], x.shape[0]), (j, size[1], x.shape[1])):
                if align_corners:
                    source = target * (before - 1) / (length - 1) if length > 1 else 0.0
                else:
                    source = min(max((target + 0.5) * before / length - 0.5, 0), before - 1)
                weights.append(np.maximum(0, 1 - np.abs(source - np.arange(before))))
            out[i, j] = np.einsum("h,w,hwc->c", *weights, x)
    return out


def norm_relu(x, norm):
    gamma, beta, mean, variance = (np.asarray(w, "float64") for w in norm.get_weights())
    return np.maximum((x - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)


def kernel(conv):
    return np.asarray(conv.get_weights()[0], "float64")[0, 0]


def reference(layer, x, shrink_factor, align_corners):
    """What the specification says, in float64, for one image [H, W, C]."""
    h, w, _ = x.shape
    size, aligned = (h, w), align_corners
    if shrink_factor > 1:
        aligned = h % 2 == w % 2 == 1
        size = [(n - 1) // shrink_factor + 1 if aligned else max(n // shrink_factor, 1) for n in (h, w)]
    (rows, columns), (mask_h, mask_w) = size, layer.mask_size
    positions = rows * columns
    directions = []
    for name in ("collect", "distribute"):
        branch = getattr(layer, name)
        f = resize(norm_relu(x @ kernel(branch.reduce_conv), branch.reduce_bn), size, aligned)
        mask = norm_relu(f @ kernel(branch.attention_conv), branch.attention_bn) @ kernel(branch.mask_conv)
        attention = np.zeros((positions, positions))
        for p in range(positions):
            for q in range(positions):
                r = q // columns - p // columns + (mask_h - 1) // 2
                s = q % columns - p % columns + (mask_w - 1) // 2
                if 0 <= r < mask_h and 0 <= s < mask_w:
                    attention[p, q] = mask[p // columns, p % columns, r * mask_w + s]
        attention = np.exp(attention.T if name == "distribute" else attention)
        attention /= attention.sum(axis=1, keepdims=True)
        directions.append((attention @ f.reshape(positions, -1)).reshape(rows, columns, -1))
    z = np.pad(np.concatenate(directions, -1), [(1, 1), (1, 1), (0, 0)])
    projected = norm_relu(z @ kernel(layer.proj_conv), layer.proj_bn)
    return np.concatenate([x, resize(projected, (h, w), aligned)], -1)


CASES = [
    (2, None, [(5, 7), (6, 8), (5, 8), (6, 7), (1, 4)]),
    (3, None, [(7, 9)]),
    (1, False, [(5, 6)]),
    (1, True, [(5, 6)]),
]


@pytest.mark.optimized_graphs
@pytest.mark.parametrize(("shrink_factor", "align_corners", "sizes"), CASES)
def test_layer_equals_the_reference(shrink_factor, align_corners, sizes):
    layer = made(shrink_factor=shrink_factor, align_corners=align_corners)
    dynamic = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, 3])])
    for size in sizes:
        x = images(2, *size, 3)
        expected = np.stack([reference(layer, image, shrink_factor, align_corners) for image in x.astype("float64")])
        for function in (layer, dynamic):
            np.testing.assert_allclose(
                function(x), expected, atol=2e-5 * np.abs(expected).max(), err_msg=f"{size}, {function}"
            )


@pytest.mark.any_keras
@pytest.mark.optimized_graphs
def test_gradients_do_not_depend_on_when_the_size_is_known():
    layer = made(psa_type="collect")
    signature = [tf.TensorSpec([None, None, None, 3])]

    def output_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            total = tf.reduce_sum(tf.square(y))
        return y, tape.gradient(total, x)

    dynamic, compiled = tf.function(output_and_gradient, signature), tf.function(output_and_gradient, jit_compile=True)
    for size in ((5, 7), (5, 8)):
        x = tf.constant(images(2, *size, 3))
        expected_y, expected_gradient = output_and_gradient(x)
        for function in (dynamic, compiled):
            y, gradient = function(x)
            np.testing.assert_allclose(y, expected_y, atol=2e-5 * np.abs(expected_y).max())
            np.testing.assert_allclose(gradient, expected_gradient, atol=2e-4 * np.abs(expected_gradient).max())


def test_file_brings_the_variant_back(tmp_path):
    inputs = keras.Input([None, None, 3])
    layer = PSALayer(mid_channels=4, variant="mmseg", mask_size=(4, 6), shrink_factor=1, align_corners=True)
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert restored.layers[-1].get_config() == layer.get_config()
    x = images(1, 6, 5, 3)
    np.testing.assert_array_equal(restored(x), model(x))


def test_the_mask_of_a_static_size_reaches_all_of_it():
    layer = PSALayer(mid_channels=4, variant="mmseg")
    layer.build((None, 6, 8, 3))
    assert layer.collect.mask_conv.filters == 5 * 7  # 3 x 4 after shrinking
    with pytest.raises(ValueError, match=r"was built for inputs of 6 x 8; .* mask_size"):
        layer(images(1, 7, 9, 3))
    with pytest.raises(ValueError, match="mask_size is needed where H and W are dynamic"):
        PSALayer(variant="mmseg").build((None, 6, None, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "caffe"}, "variant must be one of 'semseg', 'mmseg', got 'caffe'"),
        ({"mask_size": (66, 66)}, r"must be odd and positive, got \(66, 66\): use 67 .* variant='mmseg' takes even"),
        ({"variant": "mmseg", "mask_size": (0, 66)}, r"must be positive, got \(0, 66\): the smallest is \(1, 1\)"),
        ({"variant": "mmseg", "mask_size": 66}, "must be two integers .* got 66"),
        ({"align_corners": False}, "align_corners must be True or left out with variant='semseg'"),
        ({"variant": "mmseg", "align_corners": "no"}, "align_corners must be True or False, got 'no'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PSALayer(**arguments)


@pytest.mark.parametrize(("variant", "shrink_factor"), [("mmseg", 2), ("semseg", 2), ("semseg", 3), ("semseg", 1)])
def test_the_shrunk_grid_is_where_the_resize_samples(variant, shrink_factor):
    """For sizes that are known beforehand and for those that a graph is given."""
    layer = PSALayer(mid_channels=4, variant=variant, shrink_factor=shrink_factor, mask_size=(9, 9))
    dynamic = tf.function(layer.shrunk_grid, input_signature=[[tf.TensorSpec([], tf.int32)] * 2])
    for size in ((9, 7), (8, 6), (9, 6), (2, 1), (12, 17)):
        places = np.stack(np.mgrid[: size[0], : size[1]], axis=-1).astype("float64")
        shrunk, first, step = (values.numpy() for values in layer.shrunk_grid(size))
        aligned = variant == "semseg" or size[0] % 2 == size[1] % 2 == 1
        sampled = resize(places, shrunk, aligned)
        expected = np.stack(np.mgrid[: shrunk[0], : shrunk[1]], axis=-1) * step + first
        np.testing.assert_allclose(sampled, expected, atol=1e-9)
        assert (step > 0).all()
        for known, given in zip((shrunk, first, step), dynamic([tf.constant(n) for n in size]), strict=True):
            np.testing.assert_array_equal(known, given)
