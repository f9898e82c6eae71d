"""`PSANet(variant="mmseg")`: its network, any size of input, its weights' names."""

import numpy as np
import pytest

from psanet_tf import (
    PSALayer,
    PSANet,
    load_mmseg_weights,
    load_semseg_weights,
    mmseg_state_dict,
    semseg_state_dict,
)
from psanet_tf.keras_api import keras
from psanet_tf.weights.public_weights import WeightsMismatchError

SMALL = {"num_classes": 5, "blocks": (1, 2, 2, 2), "width": 4, "variant": "mmseg", "mask_size": (4, 6)}
SMALLEST = SMALL | {"blocks": (1, 1, 1, 1)}


def images(*size):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return PSANet(**SMALL, input_shape=(None, None, 3))


@pytest.fixture(scope="module")
def state(model):
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.5, 1.5, value.shape).astype(value.dtype) for name, value in mmseg_state_dict(model).items()
    }


def assert_holds(model, state):
    found = mmseg_state_dict(model)
    for name, value in found.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(value, state[name], err_msg=name)


def test_first_blocks_are_dilated_half_as_much(model):
    dilations = {
        name: model.get_layer(f"{name}_conv2").dilation_rate[0]
        for name in ("layer2_0", "layer2_1", "layer3_0", "layer3_1", "layer4_0", "layer4_1")
    }
    assert list(dilations.values()) == [1, 1, 1, 2, 2, 4]
    assert [model.get_layer(f"stem_conv{i}").filters for i in (1, 2, 3)] == [2, 2, 4]


@pytest.fixture(scope="module")
def any_size():
    model = PSANet(**SMALLEST, input_shape=(None, None, 3))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape).astype("float32") for weight in model.get_weights()])
    return model


@pytest.mark.parametrize(
    "size", [*(pytest.param(size, marks=pytest.mark.any_keras) for size in [(64, 40), (33, 49)]), (30, 45)]
)
def test_any_size_static_or_not(any_size, size, tmp_path):
    x = images(*size)
    fixed = PSANet(**SMALLEST, input_shape=(*size, 3))
    fixed.set_weights(any_size.get_weights())
    expected = fixed(x)
    assert expected["logits"].shape == expected["aux_logits"].shape == (2, *size, 5)
    if size == (30, 45):
        fixed.save(tmp_path / "model.keras")
        restored = keras.saving.load_model(tmp_path / "model.keras", compile=False)
        assert restored.get_config() == fixed.get_config()
        np.testing.assert_array_equal(restored(x)["logits"], expected["logits"])
    for name, value in any_size(x).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-4 * np.abs(expected[name]).max())


@pytest.mark.any_keras
def test_align_corners_is_of_the_logits():
    x = images(33, 25)
    outputs = []
    for align_corners, kept in ((None, False), (True, True)):
        keras.utils.set_random_seed(1)
        network = PSANet(**SMALLEST, input_shape=(33, 25, 3), align_corners=align_corners)
        assert network.get_config()["align_corners"] is network.get_layer("logits").align_corners is kept
        outputs.append(network(x)["logits"])
    assert np.abs(outputs[1] - outputs[0]).max() > 1e-3
    # With aligned corners the corner pixels are the corner features.
    coarse = keras.Model(network.inputs[0], network.get_layer("head_classifier").output)(x)
    np.testing.assert_allclose(outputs[1][:, ::32, ::24], coarse[:, ::4, ::3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stem": "deep"}, "stem must be 'v1c' or left out with variant='mmseg', got 'deep'"),
        ({"stride_in_1x1": True}, "stride_in_1x1 must be False or left out with variant='mmseg', got True"),
        ({"zoom_factor": 4}, "zoom_factor must be 8 or left out with variant='mmseg', got 4"),
        ({"width": 5}, "width must be even with stem='v1c', which begins with half of it, got 5"),
        ({"variant": "torch"}, "variant must be one of 'semseg', 'mmseg', got 'torch'"),
        ({"variant": "semseg", "align_corners": False}, "mask_size .*odd|align_corners must be True or left out"),
        ({"variant": "semseg"}, r"mask_size of an over-complete mask must be odd .* got \(4, 6\)"),
    ],
)
def test_what_does_not_go_together_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PSANet(**{**SMALL, "input_shape": (33, 33, 3), **arguments})


def test_round_trip_through_every_weight(model, state):
    result = load_mmseg_weights(model, {"meta": {"CLASSES": "abcde"}, "state_dict": state})
    assert_holds(model, state)
    assert len(result.loaded) == len(model.weights) == sum("num_batches" not in name for name in state)


def test_what_does_not_fit_changes_nothing(model, state):
    load_mmseg_weights(model, state)
    broken = {name: value + 1 for name, value in state.items()}
    broken["decode_head.proj.conv.wait"] = broken.pop("decode_head.proj.conv.weight")
    broken["auxiliary_head.conv_seg.bias"] = np.zeros(7)
    with pytest.raises(WeightsMismatchError) as caught:
        load_mmseg_weights(model, broken)
    assert caught.value.problems == [
        "missing: decode_head.proj.conv.weight [128, 64, 1, 1]",
        "auxiliary_head.conv_seg.bias: shape [7], needs [5]",
        "unexpected: decode_head.proj.conv.wait",
    ]
    assert_holds(model, state)


def test_parts(model, state):
    load_mmseg_weights(model, state)
    other = {name: value + 1 for name, value in state.items()}
    beginnings = {
        "backbone": ("backbone.",),
        "psa": ("decode_head.reduce", "decode_head.attention", "decode_head.proj"),
        "head": ("decode_head.bottleneck", "decode_head.conv_seg"),
        "aux": ("auxiliary_head.",),
    }
    for part, names in beginnings.items():
        result = load_mmseg_weights(model, other, parts=part)
        assert result.loaded and all(name.startswith(names) for name in result.loaded)
    assert_holds(model, other)
    classes = other | {"decode_head.conv_seg.bias": np.zeros(7)}
    result = load_mmseg_weights(model, classes, skip_mismatch="head")
    assert result.skipped == {"decode_head.conv_seg.bias": "shape [7], needs [5]"}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_backbone_by_itself(model, state, prefix):
    load_mmseg_weights(model, state)
    backbone = {
        prefix + name.removeprefix("backbone."): value + 1
        for name, value in state.items()
        if name.startswith("backbone.")
    }
    load_mmseg_weights(model, backbone | {f"{prefix}fc.weight": np.zeros([3, 3])}, parts="backbone")
    raised = {name: value + 1 if name.startswith("backbone.") else value for name, value in state.items()}
    assert_holds(model, raised)
    if prefix:
        return
    # The original's network may have this stem too.
    semseg = PSANet(5, blocks=(1, 2, 2, 2), width=4, stem="v1c", input_shape=(33, 33, 3))
    load_semseg_weights(semseg, backbone, parts="backbone")
    np.testing.assert_array_equal(semseg_state_dict(semseg)["layer0.3.weight"], state["backbone.stem.3.weight"] + 1)


@pytest.mark.parametrize("psa_type", ["collect", "distribute", "bi-direction"])
def test_layer_alone(psa_type):
    layer = PSALayer(mid_channels=4, psa_type=psa_type, variant="mmseg", mask_size=(4, 6))
    layer.build((None, None, None, 6))
    state = {name: value + 1 for name, value in mmseg_state_dict(layer).items()}
    assert ("attention_p.0.conv.weight" in state) == (psa_type == "bi-direction")
    assert state["attention.1.weight"].shape == (24, 4, 1, 1)
    load_mmseg_weights(layer, state)
    assert_holds(layer, state)


def test_the_other_variant_is_refused(model, state):
    message = "must be of variant='semseg', .* is of variant='mmseg': use load_mmseg_weights"
    for function in (lambda target: load_semseg_weights(target, {}), semseg_state_dict):
        with pytest.raises(ValueError, match=message):
            function(model)
    layer = PSALayer(mid_channels=4)
    layer.build((None, 9, 9, 6))
    with pytest.raises(ValueError, match="must be of variant='mmseg', .* use load_semseg_weights"):
        load_mmseg_weights(layer, state)
    with pytest.raises(ValueError, match="must be a PSANet or a PSALayer, got Dense"):
        mmseg_state_dict(keras.layers.Dense(3))
