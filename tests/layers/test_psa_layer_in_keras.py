"""`PSALayer` as a citizen of Keras: files, kinds of models, precision, sizes, wrong arguments."""

import itertools
import json
import warnings

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSALayer
from psanet_tf.keras_api import keras
from psanet_tf.layers import PSABranch


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(5)


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def perturb(model):
    """Weights unlike the initial ones: only then does a file that loses them show."""
    rng = np.random.default_rng(11)
    model.set_weights([w + rng.uniform(0.1, 0.3, w.shape).astype(w.dtype) for w in model.get_weights()])


@keras.saving.register_keras_serializable("psanet_tf_tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.psa = PSALayer(mid_channels=4, psa_type="distribute")
        self.last = keras.layers.Conv2D(2, 1)

    def call(self, inputs, training=None):
        return self.last(self.psa(inputs, training=training))


def functional():
    inputs = keras.Input([9, 7, 6])
    return keras.Model(inputs, keras.layers.Conv2D(2, 1)(PSALayer(mid_channels=4)(inputs)))


def sequential():
    return keras.Sequential([keras.Input([9, 7, 6]), PSALayer(mid_channels=4, psa_type="collect")])


@pytest.mark.parametrize("make", [functional, sequential, Subclassed])
@pytest.mark.parametrize("kind", ["keras", "weights"])
def test_files_bring_every_weight_back(make, kind, tmp_path):
    x = images(2, 9, 7, 6)
    model = make()
    model(x)
    perturb(model)
    expected = model(x)
    if kind == "keras":
        model.save(tmp_path / "model.keras")
        restored = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    else:
        model.save_weights(tmp_path / "model.weights.h5")
        restored = make()
        restored(x)
        restored.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(restored(x), expected)


def test_checkpoint_brings_every_weight_back(tmp_path):
    x = images(1, 5, 5, 6)
    layer = PSALayer(mid_channels=4)
    model = keras.Sequential([keras.Input([5, 5, 6]), layer])
    perturb(model)
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    other = keras.Sequential([keras.Input([5, 5, 6]), PSALayer(mid_channels=4)])
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(x), model(x))


def test_config_round_trip_keeps_every_argument():
    layer = PSALayer(
        mid_channels=3,
        psa_type="collect",
        compact=False,
        shrink_factor=3,
        mask_size=(5, 7),
        normalization_factor=None,
        psa_softmax=False,
        concat_input=False,
        synchronized_batch_norm=True,
        name="attention",
    )
    config = layer.get_config()
    assert PSALayer.from_config(config).get_config() == config
    assert layer.mask_size == (5, 7)
    layer.build((None, None, None, 6))
    assert layer.get_config() == config


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("psa_type", "shrink_factor", "size"),
    [
        *itertools.product(["bi-direction"], [1, 2, 3], [(1, 1), (2, 3), (6, 8), (7, 7), (10, 5)]),
        ("collect", 2, (6, 8)),
        ("distribute", 3, (7, 7)),
    ],
)
def test_any_size_keeps_its_size(psa_type, shrink_factor, size):
    layer = PSALayer(mid_channels=4, psa_type=psa_type, shrink_factor=shrink_factor)
    x = images(2, *size, 3)
    y = layer(x)
    assert y.shape == (2, *size, 6)
    np.testing.assert_array_equal(y[..., :3], x)
    assert np.all(np.isfinite(y))
    without_input = PSALayer.from_config(layer.get_config() | {"concat_input": False})
    without_input.build(x.shape)
    without_input.set_weights(layer.get_weights())
    np.testing.assert_array_equal(without_input(x), y[..., 3:])


def test_sampling_before_the_reduction_changes_nothing():
    # In inference an odd size is sampled first; a dynamic size is resized the long way.
    layer = PSALayer(mid_channels=4, mask_size=(9, 7))
    x = images(2, 9, 7, 6)
    layer(x)
    perturb(layer)
    dynamic = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, 6])])
    np.testing.assert_allclose(dynamic(x), layer(x), rtol=2e-5, atol=1e-6)


def test_dynamic_size_with_a_mask_size():
    inputs = keras.Input([None, None, 6])
    model = keras.Model(inputs, PSALayer(mid_channels=4, mask_size=(9, 9))(inputs))
    perturb(model)
    assert model.output_shape == (None, None, None, 12)
    for size in [(9, 9), (5, 12), (8, 3)]:
        x = images(1, *size, 6)
        layer = PSALayer(mid_channels=4, mask_size=(9, 9))
        layer.build(x.shape)
        layer.set_weights(model.get_weights())
        np.testing.assert_allclose(model(x), layer(x), rtol=2e-5, atol=1e-5)


def test_attention_sums_to_one_over_the_sources():
    layer = PSALayer(mid_channels=4)
    x = images(2, 9, 7, 6)
    layer(x)
    perturb(layer)
    matrices = layer.attention(x)
    assert list(matrices) == ["collect", "distribute"]
    for matrix in matrices.values():
        assert matrix.shape == (2, 20, 20)
        np.testing.assert_allclose(np.sum(matrix, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_precision(policy):
    x = images(2, 9, 9, 6)
    reference = PSALayer(mid_channels=4)
    reference(x)
    perturb(reference)
    layer = PSALayer(mid_channels=4, dtype=policy)
    layer.build(x.shape)
    layer.set_weights(reference.get_weights())
    weights = [w if isinstance(w, tf.Variable) else w.value for w in layer.trainable_weights]
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
    gradients = tape.gradient(y, weights)
    assert y.dtype == policy.removeprefix("mixed_")
    assert all(g is not None and np.all(np.isfinite(tf.cast(g, tf.float64))) for g in gradients)
    expected = reference(x, training=True)
    tolerance = {"mixed_float16": 1e-2, "mixed_bfloat16": 1e-1, "float64": 1e-4}[policy]
    np.testing.assert_allclose(tf.cast(y, tf.float32), expected, atol=tolerance * np.max(np.abs(expected)))


def test_frozen_layer_keeps_weights_and_statistics():
    layer = PSALayer(mid_channels=4)
    x = images(4, 5, 5, 6)
    expected = layer(x)
    layer.trainable = False
    before = layer.get_weights()
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-5, atol=1e-6)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not layer.trainable_weights


@pytest.mark.any_keras
@pytest.mark.parametrize("implementation", ["auto", "custom", "stock"])
def test_keras_compiles_no_model_with_xla_that_insists_on_the_op(implementation):
    inputs = keras.Input([5, 5, 4])
    model = keras.Model(inputs, PSALayer(mid_channels=4, implementation=implementation)(inputs))
    branches = [PSABranch("collect", 4, (9, 9), implementation=implementation)]
    assert all(layer.supports_jit == (implementation != "custom") for layer in [model.layers[-1], *branches])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.compile("sgd", "mse", jit_compile=True)
    assert model.jit_compile == (implementation != "custom")
    assert any("support `jit_compile=True`" in str(warning.message) for warning in caught) != model.jit_compile


@pytest.mark.optimized_graphs
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_function_with_gradient_equals_eager(jit_compile):
    layer = PSALayer(mid_channels=4)
    x = tf.constant(images(2, 9, 9, 6))
    layer(x)
    perturb(layer)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return y, tape.gradient(y, x)

    for actual, expected in zip(tf.function(gradient, jit_compile=jit_compile)(x), gradient(x), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def signs(count, seed):
    """Images with one marked pixel each, and, at every pixel, the sign of the mark."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.1, (count, 5, 5, 3)).astype("float32")
    sign = rng.choice([-1, 1], count)
    x[np.arange(count), rng.integers(0, 5, count), rng.integers(0, 5, count), 0] = 2 * sign
    return x, np.broadcast_to(sign[:, None, None, None], (count, 5, 5, 1)).astype("float32")


@pytest.mark.parametrize("psa_type", [pytest.param("collect", marks=pytest.mark.any_keras), "distribute"])
def test_fit_learns_what_only_attention_can_tell(psa_type):
    inputs = keras.Input([5, 5, 3])
    layer = PSALayer(mid_channels=8, psa_type=psa_type, shrink_factor=1)
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1)(layer(inputs)))
    model.compile(keras.optimizers.Adam(0.03), keras.losses.MeanSquaredError(), jit_compile=False)
    before = [np.array(weight) for weight in layer.trainable_weights]
    model.fit(*signs(128, seed=1), batch_size=32, epochs=25, verbose=0)
    # One pixel of 25 sees the mark; all that can be said of the others by themselves is 0, an error of 1.
    x, y = signs(128, seed=2)
    assert np.mean(np.square(model(x) - y)) < 0.5
    for weight, old in zip(layer.trainable_weights, before, strict=True):
        assert np.max(np.abs(np.asarray(weight) - old)) > 1e-3, weight.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"psa_type": "both"}, "psa_type must be one of 'collect', 'distribute', 'bi-direction', got 'both'"),
        ({"psa_type": ["collect"]}, "psa_type must be one of"),
        ({"mid_channels": 0}, "mid_channels must be a positive integer, got 0"),
        ({"mid_channels": True}, "mid_channels must be a positive integer, got True"),
        ({"mid_channels": None}, "mid_channels must be a positive integer, got None"),
        ({"shrink_factor": 1.5}, "shrink_factor must be a positive integer, got 1.5"),
        ({"shrink_factor": 2.0}, "shrink_factor must be a positive integer, got 2.0"),
        ({"mask_size": (4, 5)}, r"odd and positive, got \(4, 5\): use 5 in place of 4"),
        ({"mask_size": (5.7, 5)}, r"two odd integers \(rows, columns\), got \(5.7, 5\)"),
        ({"mask_size": (5, 5, 5)}, r"two odd integers .* got \(5, 5, 5\)"),
        ({"mask_size": "55"}, "two odd integers .* got '55'"),
        ({"mask_size": 7}, "two odd integers .* got 7"),
        ({"normalization_factor": 0}, "normalization_factor must be a positive number or None, got 0"),
        ({"normalization_factor": "none"}, "positive number or None, got 'none'"),
        ({"normalization_factor": float("nan")}, "positive number or None, got nan"),
        ({"normalization_factor": float("inf")}, "positive number or None, got inf"),
        ({"normalization_factor": True}, "positive number or None, got True"),
        ({"psa_softmax": "no"}, "psa_softmax must be True or False, got 'no'"),
        ({"compact": 1}, "compact must be True or False, got 1"),
        ({"concat_input": None}, "concat_input must be True or False, got None"),
        ({"synchronized_batch_norm": "yes"}, "synchronized_batch_norm must be True or False, got 'yes'"),
        ({"trainable": "no"}, "trainable must be True or False, got 'no'"),
        ({"dtype": "int32"}, "dtype must compute in one of float16, bfloat16, float32, float64, got 'int32'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PSALayer(**arguments)


def test_unknown_argument_is_named():
    with pytest.raises((TypeError, ValueError), match="mid_chanels"):
        PSALayer(mid_chanels=4)


def test_numpy_arguments_are_taken_as_pythons(tmp_path):
    layer = PSALayer(
        mid_channels=np.int64(4),
        shrink_factor=np.int32(2),
        mask_size=np.array([5, 7]),
        normalization_factor=np.float32(2),
        psa_softmax=np.bool_(False),
    )
    config = layer.get_config()
    assert json.loads(json.dumps({name: config[name] for name in ("mid_channels", "shrink_factor")})) == {
        "mid_channels": 4,
        "shrink_factor": 2,
    }
    model = keras.Sequential([keras.Input([9, 9, 6]), layer])
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras", compile=False).layers[-1]
    assert (restored.mask_size, restored.normalization_factor, restored.psa_softmax) == ((5, 7), 2.0, False)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({}, (None, 9, 9), r"PSALayer takes \[N, H, W, C\]"),
        ({}, (None, 9, 9, None), "static C"),
        ({}, (None, None, None, 6), "mask_size is needed where H and W are dynamic"),
        ({"compact": True}, (None, None, None, 6), "compact PSALayer .* needs static H and W"),
        ({"compact": True, "mask_size": (9, 9)}, (None, 9, 9, 6), r"must be the shrunk size \(5, 5\), got \(9, 9\)"),
    ],
)
def test_wrong_input_shapes_are_named(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        PSALayer(**arguments).build(shape)


def test_compact_layer_refuses_another_size():
    layer = PSALayer(mid_channels=4, compact=True)
    layer(images(1, 9, 9, 6))
    with pytest.raises(ValueError, match=r"works at the size it was built for, \(5, 5\)"):
        layer(images(1, 5, 5, 6))
    dynamic = tf.function(layer, input_signature=[tf.TensorSpec([1, None, None, 6])])
    with pytest.raises(ValueError, match="got a dynamic size; use compact=False"):
        dynamic(images(1, 9, 9, 6))


def test_a_call_larger_than_the_build_size_is_refused():
    layer = PSALayer(mid_channels=4)
    layer(images(1, 9, 11, 6))
    message = r"was built for inputs of 9 x 11; .* mask_size, for instance mask_size=\(9, 11\)"
    with pytest.raises(ValueError, match=message):
        layer(images(1, 33, 33, 6))
    with pytest.raises(ValueError, match=message):
        layer(images(1, 9, 13, 6))
    with pytest.raises(ValueError, match=message):
        layer.attention(images(1, 33, 33, 6))
    with pytest.raises(ValueError, match=message):
        layer(keras.Input([33, 33, 6]))
    dynamic = tf.function(layer, input_signature=[tf.TensorSpec([1, None, None, 6])])
    np.testing.assert_allclose(dynamic(images(1, 9, 11, 6)), layer(images(1, 9, 11, 6)), rtol=2e-5, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="mask_size, for instance"):
        dynamic(images(1, 33, 33, 6))


def test_a_smaller_call_uses_the_middle_of_the_mask():
    layer = PSALayer(mid_channels=4)
    layer(images(1, 9, 9, 6))
    perturb(layer)
    small = PSALayer(mid_channels=4)
    x = images(1, 5, 7, 6)
    small.build(x.shape)
    for source, target in zip(layer.weights, small.weights, strict=True):
        values = np.asarray(source)
        if source.shape != target.shape:  # the 9 x 9 offsets, of which 5 x 7 are within reach
            values = values.reshape(1, 1, 4, 9, 9)[..., 2:7, 1:8].reshape(1, 1, 4, 35)
        target.assign(values)
    np.testing.assert_allclose(layer(x), small(x), rtol=1e-5, atol=1e-6)


def test_wrong_channel_count_is_named():
    layer = PSALayer(mid_channels=4)
    with pytest.raises(ValueError, match="has no weights yet"):
        layer.attention(images(1, 9, 9, 6))
    layer(images(1, 9, 9, 6))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 6"):
        layer(images(1, 9, 9, 5))
    with pytest.raises(ValueError, match=r"was built for inputs \[N, H, W, 6\], got shape \(1, 9, 9, 5\)"):
        layer.attention(images(1, 9, 9, 5))
    with pytest.raises(ValueError, match=r"was built for inputs \[N, H, W, 6\], got shape \(9, 9, 6\)"):
        layer.attention(images(9, 9, 6))


def test_channels_first_in_the_configuration_changes_nothing(channels_first):
    layer = PSALayer(mid_channels=4)
    x = images(1, 9, 7, 6)
    y = layer(x, training=True)
    assert y.shape == (1, 9, 7, 12)
    assert layer.proj_conv.data_format == "channels_last"


@pytest.mark.parametrize("case", [{"psa_type": "bi-direction"}, {"mask_size": (5, 7), "normalization_factor": None}])
def test_blocks_change_no_number_and_no_weight(case, tmp_path):
    """Training step, files and attention maps of one layer, as a whole and in blocks."""
    x = images(2, 13, 9, 6)
    layers = {
        block_size: PSALayer(mid_channels=4, block_size=block_size, name="psa", **case)
        for block_size in (None, 2, (3, 2))
    }
    layers[None](x)
    weights = layers[None].get_weights()
    results = {}
    for block_size, layer in layers.items():
        layer(x)
        layer.set_weights(weights)
        kernels = [branch.mask_conv.kernel for branch in (layer.collect, layer.distribute)]
        kernels = [kernel if isinstance(kernel, tf.Variable) else kernel.value for kernel in kernels]
        with tf.GradientTape() as tape:
            outputs = layer(x, training=True)
            loss = tf.reduce_sum(outputs * images(*outputs.shape, seed=1))
        gradients = tape.gradient(loss, kernels)
        results[block_size] = [outputs, *gradients, layer.attention(x)["collect"]]
    for block_size in (2, (3, 2)):
        for ours, whole in zip(results[block_size], results[None], strict=True):
            assert np.max(np.abs(ours - whole)) <= 1e-5 * np.max(np.abs(whole))
        inputs = keras.Input([13, 9, 6])
        model = keras.Model(inputs, layers[block_size](inputs))
        model.save(tmp_path / "model.keras")
        restored = keras.saving.load_model(tmp_path / "model.keras")
        assert restored.get_layer("psa").block_size == block_size
        np.testing.assert_array_equal(restored(x), model(x))
    # A configuration from before there were blocks.
    config = layers[None].get_config()
    del config["block_size"]
    assert PSALayer.from_config(config).block_size == "auto"


@pytest.mark.parametrize("block_size", ["whole", 0, (3,), (3, -1), (1, 2, 3), 2.5, True])
def test_bad_block_sizes(block_size):
    with pytest.raises(ValueError, match="block_size must be .*, got"):
        PSALayer(block_size=block_size)


def test_a_compact_layer_has_no_blocks():
    with pytest.raises(ValueError, match="block_size must be .* with compact=True"):
        PSALayer(compact=True, block_size=8)
    assert PSALayer(compact=True).block_size == "auto"
