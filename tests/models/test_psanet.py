"""`PSANet`: kinds of networks, sizes, files, precision, frozen layers, wrong arguments."""

import json

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSALayer, PSANet
from psanet_tf.keras_api import LEGACY_KERAS, keras
from psanet_tf.layers import BatchNormalization

SMALL = {"num_classes": 5, "blocks": (1, 1, 1, 1), "width": 4, "input_shape": (33, 25, 3)}


def images(*size, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *size, 3)).astype("float32")


def perturb(model):
    rng = np.random.default_rng(7)
    model.set_weights([w + rng.uniform(-0.1, 0.1, w.shape).astype(w.dtype) for w in model.get_weights()])


@pytest.fixture(scope="module")
def network():
    """(model, its inputs, its outputs); weights unlike the initial ones. For tests that change nothing of it."""
    model = PSANet(**SMALL)
    perturb(model)
    x = images(33, 25)
    return model, x, model(x)


@pytest.mark.parametrize(
    ("depth", "blocks", "width"),
    [
        (50, 16, 64),
        (101, 33, 2),
        (152, 50, 2),
    ],
)
@pytest.mark.any_keras
def test_depths(depth, blocks, width):
    model = PSANet(150, depth=depth, width=width) if width != 64 else PSANet(150, depth=depth)
    assert {name: tuple(output.shape) for name, output in model.output.items()} == {
        "logits": (None, 465, 465, 150),
        "aux_logits": (None, 465, 465, 150),
    }
    convolutions = [
        layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and layer.name.startswith("layer")
    ]
    # Three in every bottleneck, and a shortcut in each of the four stages.
    assert len(convolutions) == 3 * blocks + 4
    assert model.get_layer("psa").collect.mask_conv.kernel.shape == (1, 1, 8 * width, 59 * 59)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"use_psa": False, "zoom_factor": 4}, marks=pytest.mark.any_keras),
        pytest.param({"psa_type": "collect", "shrink_factor": 1, "mask_size": (3, 3)}, marks=pytest.mark.any_keras),
        {"psa_type": "distribute", "compact": True},
        {
            "input_shape": (None, None, 3),
            "mask_size": (5, 5),
            "normalization_factor": None,
            "psa_softmax": False,
            "mid_channels": 6,
        },
    ],
)
def test_file_brings_the_network_back(arguments, tmp_path):
    model = PSANet(**SMALL | arguments)
    perturb(model)
    x = images(33, 25)
    expected = model(x)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert isinstance(restored, PSANet)
    assert restored.get_config() == model.get_config()
    size = (17, 13) if "zoom_factor" in arguments else (33, 25)
    for name, value in restored(x).items():
        assert value.shape == (2, *size, 5)
        np.testing.assert_array_equal(value, expected[name])


def test_inference_shares_the_weights(network):
    model, x, outputs = network
    inference = model.inference()
    np.testing.assert_array_equal(inference(x), outputs["logits"])
    weights = {id(weight) for weight in model.weights}
    assert inference.weights and all(id(weight) in weights for weight in inference.weights)
    assert not any(layer.name.startswith("aux") for layer in inference.layers)


def test_baseline_has_no_attention(network):
    assert not any(isinstance(layer, PSALayer) for layer in PSANet(**SMALL, use_psa=False).layers)
    assert any(isinstance(layer, PSALayer) for layer in network[0].layers)


@pytest.fixture(scope="module")
def any_size():
    model = PSANet(**SMALL | {"input_shape": (None, None, 3), "mask_size": (7, 7)})
    perturb(model)
    return model


@pytest.mark.parametrize(
    ("size", "features"),
    [
        ((33, 41), (5, 6)),
        pytest.param((32, 40), (4, 5), marks=pytest.mark.any_keras),
        pytest.param((34, 48), (5, 6), marks=pytest.mark.any_keras),
        pytest.param((41, 9), (6, 2), marks=pytest.mark.any_keras),
    ],
)
def test_every_eighth_pixel_has_a_feature_at_static_and_dynamic_sizes(any_size, size, features):
    x = images(*size)
    model = PSANet(**SMALL | {"input_shape": (*size, 3), "mask_size": (7, 7)})
    model.set_weights(any_size.get_weights())
    logits = model(x)["logits"]
    assert logits.shape == (2, *size, 5)
    limit = 1e-4 * np.max(np.abs(logits))
    np.testing.assert_allclose(any_size(x)["logits"], logits, rtol=1e-4, atol=limit)
    coarse = keras.Model(model.inputs[0], model.get_layer("head_classifier").output)(x)
    assert tuple(coarse.shape[1:3]) == features
    # Corners are aligned: the last feature is drawn at the last pixel.
    np.testing.assert_allclose(logits[:, -1, -1], coarse[:, -1, -1], rtol=1e-4, atol=1e-4)
    if size == (33, 41):
        np.testing.assert_allclose(logits[:, ::8, ::8], coarse, rtol=1e-4, atol=1e-4)


def test_dilation_keeps_what_striding_would_compute(network):
    # A dilated stage at stride 1, sampled every second position, is the strided stage without dilation.
    model, _, _ = network
    for name, dilation in (("layer3_0_conv2", 2), ("layer4_0_conv2", 4)):
        layer = model.get_layer(name)
        assert layer.dilation_rate == (dilation, dilation)
        assert layer.strides == (1, 1)
        x = images(9, 9)[..., :1] * np.ones(layer.kernel.shape[2], "float32")
        sampled = tf.nn.conv2d(x[:, ::dilation, ::dilation], tf.convert_to_tensor(layer.kernel), 1, "SAME")
        np.testing.assert_allclose(layer(x)[:, ::dilation, ::dilation], sampled, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param("mixed_float16", marks=pytest.mark.any_keras),
        "mixed_bfloat16",
        pytest.param("float64", marks=pytest.mark.any_keras),
    ],
)
def test_logits_are_wide_under_every_policy(network, policy, tmp_path):
    reference, x, outputs = network
    model = PSANet(**SMALL, dtype=policy)
    model.set_weights(reference.get_weights())
    logits = model(x)["logits"]
    assert logits.dtype == ("float64" if policy == "float64" else "float32")
    expected = outputs["logits"]
    limit = {"mixed_float16": 3e-2, "mixed_bfloat16": 2e-1, "float64": 1e-4}[policy]
    np.testing.assert_allclose(tf.cast(logits, tf.float32), expected, atol=limit * np.max(np.abs(expected)))
    assert model.get_config()["dtype"] == policy
    if policy == "mixed_bfloat16":
        model.save(tmp_path / "model.keras")
        restored = keras.saving.load_model(tmp_path / "model.keras", compile=False)
        np.testing.assert_array_equal(restored(x)["logits"], logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes must be an integer of at least 2, got 1"),
        ({"num_classes": 5.0}, "num_classes must be an integer of at least 2, got 5.0"),
        ({"depth": 34, "blocks": None}, "depth must be one of 50, 101, 152, got 34"),
        ({"depth": "50", "blocks": None}, "depth must be one of 50, 101, 152, got '50'"),
        ({"blocks": (1, 1, 1)}, r"blocks must be four positive integers, one per stage, got \(1, 1, 1\)"),
        ({"blocks": 1}, "blocks must be four positive integers, one per stage, got 1"),
        ({"blocks": (1, 1, 1, 0.5)}, "blocks must be four positive integers"),
        ({"width": 0}, "width must be a positive integer, got 0"),
        ({"width": True}, "width must be a positive integer, got True"),
        ({"stem": "shallow"}, "stem must be one of 'deep', 'classic', 'v1c', got 'shallow'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": "0.1"}, r"dropout must be in \[0, 1\), got '0.1'"),
        ({"input_shape": (33, 25)}, r"input_shape must be \(H, W, C\)"),
        (
            {"input_shape": 41},
            r"input_shape must be \(H, W, C\), with None for a dynamic H or W, got 41",
        ),
        ({"input_shape": (33, 25, 0)}, r"input_shape must be \(H, W, C\), .* got \(33, 25, 0\)"),
        ({"input_shape": (33, 25, None)}, r"input_shape must be \(H, W, C\), .* got \(33, 25, None\)"),
        ({"input_shape": (33.0, 25, 3)}, r"input_shape must be \(H, W, C\), .* got \(33.0, 25, 3\)"),
        ({"input_shape": (8, 465, 3)}, "input_shape must have at least 9 rows and columns, got 8"),
        ({"input_shape": (464, 465, 3), "zoom_factor": 4}, "8n . 1 with zoom_factor=4, got 464; the nearest is 465"),
        ({"input_shape": (None, None, 3)}, "mask_size is needed where H and W are dynamic"),
        ({"input_shape": (None, None, 3), "compact": True}, "compact PSALayer .* needs static H and W"),
        ({"compact": True, "mask_size": (5, 5)}, "must be the shrunk size"),
        ({"mask_size": (4, 5)}, "odd and positive"),
        ({"mask_size": (5.7, 5)}, r"mask_size must be two odd integers \(rows, columns\), got \(5.7, 5\)"),
        ({"psa_type": "attention"}, "psa_type must be one of"),
        ({"psa_type": "attention", "use_psa": False}, "psa_type must be one of"),
        ({"mid_channels": True}, "mid_channels must be a positive integer, got True"),
        ({"mid_channels": 0}, "mid_channels must be a positive integer, got 0"),
        ({"shrink_factor": "2"}, "shrink_factor must be a positive integer, got '2'"),
        ({"normalization_factor": "none"}, "normalization_factor must be a positive number or None, got 'none'"),
        ({"psa_softmax": "no"}, "psa_softmax must be True or False, got 'no'"),
        ({"compact": "no"}, "compact must be True or False, got 'no'"),
        ({"use_psa": "no"}, "use_psa must be True or False, got 'no'"),
        ({"stride_in_1x1": 0}, "stride_in_1x1 must be True or False, got 0"),
        ({"synchronized_batch_norm": "no"}, "synchronized_batch_norm must be True or False, got 'no'"),
        ({"zoom_factor": 3}, "zoom_factor must be 1, 2, 4 or 8, got 3"),
        ({"zoom_factor": True}, "zoom_factor must be 1, 2, 4 or 8, got True"),
        ({"dtype": "float8"}, "dtype must be 'float16', .* or 'mixed_bfloat16', got 'float8'"),
        ({"dtype": "int32"}, "dtype must be 'float16', .* or 'mixed_bfloat16', got 'int32'"),
        ({"name": 3}, "name must be a string, got 3"),
        ({"trainable": "no"}, "trainable must be True or False, got 'no'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PSANet(**SMALL | arguments)


def test_numpy_arguments_are_taken_as_pythons(tmp_path):
    numbers = {
        "num_classes": np.int64(5),
        "blocks": np.array([1, 1, 1, 1]),
        "width": np.int32(4),
        "input_shape": list(np.array([33, 25, 3])),
        "mid_channels": np.int64(6),
        "dropout": np.float32(0.25),
        "use_psa": np.bool_(True),
        "dtype": keras.mixed_precision.Policy("mixed_bfloat16"),
    }
    model = PSANet(**numbers)
    plain = PSANet(**SMALL, mid_channels=6, dropout=0.25, dtype="mixed_bfloat16")
    assert json.dumps(model.get_config()) == json.dumps(plain.get_config())


def batch_norms(model):
    norms = [layer for layer in model.layers if isinstance(layer, BatchNormalization)]
    psa = model.get_layer("psa")
    for branch in (psa.collect, psa.distribute):
        norms += [branch.reduce_bn, branch.attention_bn]
    return [*norms, psa.proj_bn]


def freeze_parts(model):
    for layer in model.layers:
        if layer.name.startswith(("stem", "layer")):
            layer.trainable = False
    model.get_layer("psa").proj_bn.trainable = False
    model.get_layer("psa").collect.mask_conv.trainable = False


def freeze_all(model):
    model.trainable = False


def test_frozen_layers_stay_frozen_in_files_and_configurations(tmp_path):
    model = PSANet(**SMALL)
    perturb(model)
    everything = len(model.trainable_weights)
    for freeze in (freeze_parts, freeze_all):
        freeze(model)
        model.save(tmp_path / "model.keras")
        from_file = keras.saving.load_model(tmp_path / "model.keras", compile=False)
        for value, expected in zip(from_file.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(value, expected)
        assert len(from_file.trainable_weights) == len(model.trainable_weights) < everything
        assert [norm.trainable for norm in batch_norms(from_file)] == [norm.trainable for norm in batch_norms(model)]
        assert from_file.get_config() == model.get_config()
        model.trainable = True


def test_trainable_is_an_argument(network):
    model = PSANet(**SMALL, trainable=False)
    before = model.get_weights()
    model(images(33, 25), training=True)
    assert not model.trainable_weights
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model.trainable = True
    assert len(model.trainable_weights) == len(network[0].trainable_weights)


def test_channels_first_in_the_configuration_changes_nothing(channels_first):
    model = PSANet(**SMALL, stem="classic")
    outputs = model(images(33, 25), training=True)
    assert outputs["logits"].shape == (2, 33, 25, 5)
    formats = {layer.data_format for layer in model.layers if hasattr(layer, "data_format")}
    assert formats == {"channels_last"}


@pytest.mark.skipif(LEGACY_KERAS, reason="training the network needs Keras 3")
def test_compiled_fit_moves_every_trainable_weight_and_no_frozen_one():
    from psanet_tf.losses import SegmentationLoss
    from psanet_tf.metrics import MeanIoU
    from psanet_tf.training.distributed_optimizer import DistributedOptimizer
    from psanet_tf.training.optimizers import SGD
    from psanet_tf.training.prebuilding import build_for_fit

    model = PSANet(**SMALL | {"input_shape": (17, 17, 3), "psa_type": "collect"})
    model.get_layer("stem_conv1").trainable = False
    model.get_layer("psa").proj_bn.trainable = False
    model.compile(
        DistributedOptimizer(SGD(0.1), ema_decay=0.9, clip_norm=1.0),
        {"logits": SegmentationLoss(), "aux_logits": SegmentationLoss()},
        metrics={"logits": [MeanIoU(5)]},
        auto_scale_loss=False,
        jit_compile=True,
    )
    model.optimizer.build(model.trainable_variables)  # else `fit` traces its step once more
    build_for_fit(model)
    before = model.get_weights()
    labels = np.random.default_rng(1).integers(0, 5, (2, 17, 17)).astype("uint8")
    fitted = model.fit(images(17, 17), {"logits": labels, "aux_logits": labels}, batch_size=2, epochs=1, verbose=0)
    assert 0 <= fitted.history["logits_miou"][0] < 0.7
    frozen = {id(v) for v in model.get_layer("stem_conv1").weights + model.get_layer("psa").proj_bn.weights}
    assert len(frozen) == 5
    for variable, old, new in zip(model.weights, before, model.get_weights(), strict=True):
        assert np.all(np.isfinite(new)), variable.name
        assert np.array_equal(old, new) == (id(variable) in frozen), variable.name
    predicted = model.predict(images(17, 17), verbose=0)  # compiled too
    for name, expected in model(images(17, 17)).items():
        np.testing.assert_allclose(predicted[name], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_clone_is_a_network_with_new_weights(network, tmp_path):
    model, x, outputs = network
    clone = keras.models.clone_model(model)
    assert isinstance(clone, PSANet)
    assert clone.get_config() == model.get_config()
    assert (clone.num_classes, clone.variant, clone.name) == (5, "semseg", "psanet")
    kernels = clone.get_layer("head_classifier").kernel, model.get_layer("head_classifier").kernel
    assert not np.array_equal(*(np.asarray(kernel) for kernel in kernels))
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone.inference()(x), outputs["logits"])
    clone.save(tmp_path / "clone.keras")
    restored = keras.saving.load_model(tmp_path / "clone.keras", compile=False)
    assert isinstance(restored, PSANet)
    np.testing.assert_array_equal(restored(x)["aux_logits"], outputs["aux_logits"])


def test_a_copy_is_frozen_where_its_network_is():
    model = PSANet(**SMALL)
    freeze_parts(model)
    for copy in (keras.models.clone_model(model), PSANet.from_config(model.get_config())):
        assert isinstance(copy, PSANet)
        assert copy.get_config() == model.get_config()
        assert [norm.trainable for norm in batch_norms(copy)] == [norm.trainable for norm in batch_norms(model)]


def test_a_clone_of_changed_layers_is_no_psanet(network):
    model, x, outputs = network

    def without_dropout(layer):
        if layer.name == "head_dropout":
            return keras.layers.Activation("linear", name="head_dropout")
        return layer

    changed = keras.models.clone_model(model, clone_function=without_dropout)
    assert not isinstance(changed, PSANet)
    np.testing.assert_array_equal(changed(x)["logits"], outputs["logits"])
    assert changed.get_layer("psa") is model.get_layer("psa")


def test_unknown_arguments_are_named():
    with pytest.raises(TypeError, match="PSANet takes num_classes, depth, .* and trainable, got 'widht' too"):
        PSANet(**SMALL, widht=4)
    with pytest.raises(TypeError, match="aux_head and trainable, got 1 more"):
        PSANet(5, *[None] * 30)
