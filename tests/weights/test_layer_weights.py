"""Weights of backbones, from files of theirs and from networks that were trained."""

import numpy as np
import pytest

from psanet_tf import PSANet
from psanet_tf.keras_api import LEGACY_KERAS, keras
from psanet_tf.weights.first_convolution import folded_kernel
from psanet_tf.weights.initial_weights import load_initial_weights
from psanet_tf.weights.layer_weights import load_backbone_weights

if LEGACY_KERAS:
    pytest.skip("backbones need Keras 3", allow_module_level=True)

from small_backbones import set_random_weights, small_convnext

NAME = "ConvNeXtTiny"
SMALL = {"num_classes": 3, "width": 4, "backbone": NAME, "use_psa": False}


@pytest.fixture(autouse=True)
def small_one(monkeypatch):
    def applications(weights=None, **arguments):
        if weights is not None:
            raise Exception("URL fetch failure on https://storage.googleapis.com/x: no network")  # as Keras does
        return small_convnext(weights=weights, **arguments)

    monkeypatch.setattr(keras.applications, NAME, applications)


def network(channels=3, **arguments):
    return PSANet(**SMALL | arguments, input_shape=(65, 65, channels))


def backbone(include_top=False):
    model = small_convnext(include_top=include_top, weights=None, input_shape=(65, 65, 3))
    set_random_weights(model)
    return model


def features(model, image):
    return np.asarray(model.get_layer("backbone")(image)[-1])


@pytest.mark.parametrize("include_top", [False, True])
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_files_of_the_backbone(tmp_path, suffix, include_top):
    if include_top and suffix == ".keras":
        pytest.skip("a file of a whole model says itself what is in it")
    source, path = backbone(include_top), tmp_path / f"backbone{suffix}"
    source.save_weights(path) if suffix == ".weights.h5" else source.save(path)
    model = network(output_stride=32)
    lines = load_backbone_weights(model, path)
    assert lines == [f"backbone from {path}: {len(model.get_layer('backbone').weights)} tensors taken"]
    image = np.random.default_rng(0).normal(size=(1, 65, 65, 3)).astype("float32")
    if not include_top:
        plain = small_convnext(include_top=False, include_preprocessing=False, weights=None, input_shape=(65, 65, 3))
        plain.set_weights(source.get_weights())
        np.testing.assert_allclose(features(model, image), plain(image), atol=1e-4)
    stem = source.get_layer("convnext_tiny_stem").layers[0].kernel
    np.testing.assert_array_equal(model.get_layer("backbone").weights[0], stem)


@pytest.mark.parametrize(("channels", "how"), [(1, "repeat"), (5, "new")])
def test_a_first_convolution_for_other_channels(tmp_path, channels, how):
    source = backbone()
    source.save_weights(tmp_path / "backbone.weights.h5")
    model = network(channels)
    before, after = np.array(model.get_layer("backbone").weights[0]), model.get_layer("backbone").weights
    lines = load_backbone_weights(model, tmp_path / "backbone.weights.h5", how)
    assert f"first convolution: 3 channels there, {channels} here" in lines[1]
    kernel = np.asarray(source.get_layer("convnext_tiny_stem").layers[0].kernel)
    expected = before if how == "new" else folded_kernel(kernel, channels, how)
    np.testing.assert_array_equal(after[0], expected)
    np.testing.assert_array_equal(after[1], source.get_layer("convnext_tiny_stem").layers[0].bias)


def test_a_network_that_was_trained(tmp_path):
    source = network()
    set_random_weights(source)
    source.save(tmp_path / "trained.keras")
    for load in (load_backbone_weights, load_initial_weights):
        model = network(num_classes=5)
        lines = load(model, tmp_path / "trained.keras")
        for weight, expected in zip(
            model.get_layer("backbone").weights, source.get_layer("backbone").weights, strict=True
        ):
            np.testing.assert_array_equal(weight, expected)
    np.testing.assert_array_equal(model.get_layer("head_conv").kernel, source.get_layer("head_conv").kernel)
    skipped = {line.partition(":")[0] for line in lines[1:]}
    assert skipped == {"skipped head_classifier", "skipped aux_classifier"}


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path):
    model = network()
    before = model.get_weights()
    resnet = PSANet(3, blocks=(1, 1, 1, 1), width=4, use_psa=False, input_shape=(33, 33, 3))
    resnet.save(tmp_path / "resnet.keras")
    wide = small_convnext(include_top=False, weights=None, input_shape=(65, 65, 3))
    wide.get_layer("convnext_tiny_stem").layers[0].kernel.assign(np.full((4, 4, 3, 8), np.nan))
    wide.save(tmp_path / "nan.keras")
    nan_head = network()
    nan_head.get_layer("head_conv").kernel.assign(np.full(nan_head.get_layer("head_conv").kernel.shape, np.nan))
    nan_head.save(tmp_path / "nan_head.keras")
    (tmp_path / "text.txt").write_text("no weights")
    cases = [
        (load_backbone_weights, "imagenet", OSError, "cannot fetch the weights of ConvNeXtTiny .*~/.keras/models"),
        (load_backbone_weights, tmp_path / "none.h5", FileNotFoundError, "there is no file .*wanted is imagenet, none"),
        (load_backbone_weights, tmp_path / "resnet.keras", ValueError, "is a network without model.backbone"),
        (
            load_backbone_weights,
            tmp_path / "nan.keras",
            ValueError,
            "stem_conv/kernel: values that are NaN",
        ),
        (load_backbone_weights, tmp_path / "text.txt", ValueError, "must be a .weights.h5, .h5 or .keras file"),
        (load_initial_weights, "imagenet", ValueError, "model.backbone_weights takes imagenet"),
        (load_initial_weights, tmp_path / "nan_head.keras", ValueError, "head_conv: values that are NaN"),
        (load_initial_weights, tmp_path / "resnet.keras", ValueError, "of a ResNet without model.backbone"),
    ]
    for load, source, error, message in cases:
        with pytest.raises(error, match=message):
            load(model, source)
    with pytest.raises(ValueError, match="is for networks with a backbone; train.init is for"):
        load_backbone_weights(resnet, "imagenet")
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
