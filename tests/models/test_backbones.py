"""`PSANet` on backbones of other kinds: the images that they get, files, copies, flags, one output, and refusals."""

import json

import numpy as np
import pytest

from psanet_tf import PSANet, freeze_batch_norm
from psanet_tf.backbone_families import BACKBONES, PREPROCESSING
from psanet_tf.data import normalize
from psanet_tf.keras_api import LEGACY_KERAS, keras

if LEGACY_KERAS:
    pytest.skip("backbones need Keras 3", allow_module_level=True)

from small_backbones import FAMILIES, SIZES, WITH_SWITCH, set_random_weights, shared_backbone, small_backbone

from psanet_tf.layers.backbone_preprocessing import BackbonePreprocessing
from psanet_tf.models.backbones import as_model, build_backbone

SMALL = {"num_classes": 3, "width": 4, "input_shape": (65, 65, 3)}
IMAGE = np.random.default_rng(2).integers(0, 256, (1, 65, 65, 3)).astype("uint8")
OF_FAMILY = {
    "ResNet": keras.applications.resnet.preprocess_input,
    "ResNetV2": keras.applications.resnet_v2.preprocess_input,
    "MobileNetV2": keras.applications.mobilenet_v2.preprocess_input,
    "DenseNet": keras.applications.densenet.preprocess_input,
    "Xception": keras.applications.xception.preprocess_input,
}


def values(outputs):
    return {name: np.asarray(value) for name, value in outputs.items()}


def assert_same(model, other, tolerance=1e-6):
    x = np.random.default_rng(3).normal(size=(1, *model.input_shape[1:])).astype("float32")
    expected, found = values(model(x, training=False)), values(other(x, training=False))
    for name, value in expected.items():
        assert np.ptp(value) > 1e-3
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance * abs(value).max())


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"Xception"}))  # the largest, as ResNetV2's
def test_a_backbone_gets_its_images_as_keras_prepares_them(family):
    """Features of the network that is fed normalized images, against the backbone's own of what Keras makes of them."""
    size = SIZES.get(family, 65)
    model = PSANet(**SMALL | {"input_shape": (size, size, 3)}, backbone=shared_backbone(family), output_stride=32)
    image = np.random.default_rng(2).integers(0, 256, (1, size, size, 3)).astype("uint8")
    features = keras.Model(model.inputs, model.get_layer("psa").input)(normalize(image), training=False)
    if family in WITH_SWITCH:
        reference = small_backbone(family, include_preprocessing=True)  # of the same weights
        prepared = image.astype("float32")
    else:
        reference, prepared = shared_backbone(family), OF_FAMILY[family](image.astype("float32"))
    expected = np.asarray(reference(prepared, training=False))
    assert expected.shape == features.shape
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4 * abs(expected).max())
    for kind in set(PREPROCESSING) - {"raw", model.get_config()["backbone_preprocessing"]}:
        other = BackbonePreprocessing(kind)(normalize(image))
        right = model.get_layer("preprocessing")(normalize(image))
        assert abs(np.asarray(other - right)).max() > 1e-3, kind  # so that a wrong one would be seen


@pytest.mark.parametrize(
    "name", ["ResNet50V2", "EfficientNetV2B0", "EfficientNetV2S", "ConvNeXtTiny", "MobileNetV2", "Xception"]
)
def test_the_kind_that_goes_with_a_name_is_what_keras_does(name):
    layer = BackbonePreprocessing(BACKBONES[name].preprocessing)
    pixels = IMAGE.astype("float32")
    if name.startswith("EfficientNetV2"):
        inside = small_backbone("EfficientNetV2", True, name=f"efficientnetv2-{name[14:].lower()}")
        first = next(each for each in inside.layers if isinstance(each, keras.layers.Conv2D))
        expected = keras.Model(inside.inputs, first.input)(pixels)
    elif name == "ConvNeXtTiny":
        inside = small_backbone("ConvNeXt", True)
        normalization = next(each for each in inside.layers if isinstance(each, keras.layers.Normalization))
        expected = normalization(pixels)
    else:
        expected = OF_FAMILY[name.removesuffix("50V2") + "V2" * name.endswith("50V2")](pixels.copy())
    np.testing.assert_allclose(layer(normalize(IMAGE)), expected, rtol=0, atol=2e-5)


def test_channels_that_are_no_colours_get_the_mean_of_the_colours_ranges():
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 5)).astype("float32")
    means, deviations = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])
    expected = x * (deviations / 127.5).mean() + ((means - 127.5) / 127.5).mean()
    np.testing.assert_allclose(BackbonePreprocessing("tf")(x), expected, atol=1e-6)
    with pytest.raises(ValueError, match="kind must be one of 'caffe'"):
        BackbonePreprocessing("imagenet")


def test_a_network_of_keras_applications_is_known_with_and_without_its_own_preprocessing():
    kinds = {}
    for included in (False, True):
        model = PSANet(**SMALL, backbone=small_backbone("ConvNeXt", included), output_stride=32)
        kinds[included] = model.get_config()["backbone_preprocessing"]
    assert kinds == {False: "torch", True: "raw"}
    renamed = keras.Model(shared_backbone("ConvNeXt").inputs, shared_backbone("ConvNeXt").outputs, name="mine")
    with pytest.raises(ValueError, match="backbone_preprocessing must say what .*'mine' is not known.*'caffe' \\(blue"):
        PSANet(**SMALL, backbone=renamed)
    model = PSANet(**SMALL, backbone=renamed, backbone_preprocessing="unit")
    assert model.get_layer("preprocessing").kind == "unit"


def test_files_configurations_and_clones_give_the_same_network(tmp_path):
    model = PSANet(**SMALL, backbone=shared_backbone("ConvNeXt"))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is PSANet and loaded.has_backbone
    assert_same(model, loaded)
    config = json.loads(json.dumps(model.get_config()))
    assert config == json.loads(json.dumps(loaded.get_config()))
    clone = keras.models.clone_model(model)
    assert type(clone) is PSANet
    clone.set_weights(model.get_weights())
    assert_same(model, clone)


def test_weights_are_those_of_the_backbone_given():
    backbone = small_backbone("ConvNeXt")
    model = PSANet(**SMALL, backbone=backbone)
    inside = model.get_layer("backbone")
    own = {id(weight) for weight in backbone.weights}
    assert len(inside.weights) >= 0.9 * len(own) and all(id(weight) in own for weight in inside.weights)
    x = normalize(IMAGE)
    before = np.asarray(model(x)["logits"])
    backbone.set_weights([1.5 * weight for weight in backbone.get_weights()])
    assert abs(np.asarray(model(x)["logits"]) - before).max() > 1e-3


def test_flags_come_back_layer_by_layer(tmp_path):
    def flags(network):
        return [(layer.name, layer.trainable) for layer in network._flatten_layers()]

    model = PSANet.from_config(PSANet(**SMALL, backbone=shared_backbone("MobileNetV3")).get_config())
    freeze_batch_norm(model)
    model.get_layer("backbone").layers[1].trainable = False
    model.get_layer("head_conv").trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert flags(loaded) == flags(model) and not all(flag for _, flag in flags(model))
    assert len(loaded.trainable_weights) == len(model.trainable_weights)
    # A file of weights says nothing of flags: they stay, and the weights come where they belong.
    set_random_weights(loaded)
    loaded.save_weights(tmp_path / "other.weights.h5")
    model.load_weights(tmp_path / "other.weights.h5")
    assert flags(loaded) == flags(model)
    assert_same(model, loaded)


def test_a_frozen_backbone_can_be_given_and_thawed():
    backbone = small_backbone("ConvNeXt")
    backbone.trainable = False
    model = PSANet(**SMALL, backbone=backbone)
    inside = model.get_layer("backbone")
    assert not inside.trainable_weights
    inside.trainable = True
    assert len(inside.trainable_weights) == len(inside.weights)


def test_synchronized_statistics_reach_the_backbone():
    model = PSANet(**SMALL, backbone=shared_backbone("MobileNetV3"), synchronized_batch_norm=True)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) > 20 and all(norm.synchronized for norm in norms)


def test_another_dtype_is_one_of_all_layers():
    with pytest.raises(ValueError, match="has layers of dtype float32, the network is of dtype 'mixed_bfloat16'"):
        PSANet(**SMALL, backbone=shared_backbone("ConvNeXt"), dtype="mixed_bfloat16")
    config = PSANet(**SMALL, backbone=shared_backbone("ConvNeXt")).get_config()
    model = PSANet.from_config(config | {"dtype": "mixed_bfloat16"})
    inside = [layer for layer in model.get_layer("backbone").layers if layer.weights]
    assert {layer.compute_dtype for layer in inside} == {"bfloat16"}
    assert model(normalize(IMAGE))["logits"].dtype == "float32"


def test_a_name_stands_for_the_network_of_keras(monkeypatch):
    from small_backbones import small_convnext

    monkeypatch.setattr(keras.applications, "ConvNeXtTiny", small_convnext)
    model = PSANet(**SMALL | {"input_shape": (65, 65, 5)}, backbone="ConvNeXtTiny", dtype="mixed_bfloat16")
    assert model.get_config()["backbone"] == "ConvNeXtTiny"
    assert model.get_config()["backbone_preprocessing"] == "torch"
    assert model.get_layer("backbone").layers[1].compute_dtype == "bfloat16"
    assert model(np.zeros((1, 65, 65, 5), "float32"))["logits"].shape == (1, 65, 65, 3)
    assert keras.config.dtype_policy().name == "float32"
    copy = PSANet.from_config(model.get_config() | {"dtype": "float32"})
    assert copy.get_layer("backbone").layers[1].compute_dtype == "float32"


def test_any_size_with_a_mask_size():
    backbone = shared_backbone("ConvNeXt")
    fixed = PSANet(**SMALL, backbone=backbone, mask_size=(9, 9))
    model = PSANet(**SMALL | {"input_shape": (None, None, 3)}, backbone=backbone, mask_size=(9, 9))
    for layer in fixed.layers:
        if layer.weights and layer.name != "backbone":
            model.get_layer(layer.name).set_weights(layer.get_weights())
    x = np.random.default_rng(3).normal(size=(1, 65, 65, 3)).astype("float32")
    for name, value in values(fixed(x)).items():
        np.testing.assert_allclose(model(x)[name], value, atol=1e-5 * abs(value).max())
    wide = np.zeros((1, 97, 129, 3), "float32")
    assert model(wide)["logits"].shape == (1, 97, 129, 3)
    features = keras.Model(model.inputs, model.get_layer("psa").input)(wide)
    assert model.feature_size((97, 129)) == tuple(features.shape[1:3])


def own_network(middle, strides=2, **arguments):
    images = keras.Input((65, 65, 3))
    x = keras.layers.Conv2D(8, 3, strides=8, padding="same", activation="relu", name="stem")(images)
    x = keras.layers.Conv2D(8, 3, strides=strides, padding="same", activation="relu", name="down")(x)
    x = middle(x)
    return keras.Model(images, keras.layers.Conv2D(8, 3, padding="same", name="last", **arguments)(x), name="mine")


RAW = {"backbone_preprocessing": "raw"}


class Doubling(keras.layers.Layer):
    """A layer of somebody's own."""

    def call(self, inputs):
        return 2 * inputs


class DilatedDoubling(Doubling):
    def dilated(self, rate):
        return self


REFUSED = {
    "Lambda": (keras.layers.Lambda(abs, name="trick"), 2, "'trick' \\(Lambda\\) comes after .*larger output_stride"),
    "own": (Doubling(name="twice"), 2, "'twice' \\(Doubling\\) comes after .*a method dilated\\(rate\\)"),
    "Reshape": (keras.layers.Reshape((5, 5, 8), name="same"), 2, "'same' \\(Reshape\\) comes after a stride"),
    "UpSampling2D": (keras.layers.UpSampling2D(name="up"), 2, "'up' \\(UpSampling2D\\) comes after a stride"),
    "strides": (keras.layers.Identity(), (2, 1), "'down' \\(Conv2D\\) has different strides for rows and columns"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_dilated_is_refused_by_name(case):
    middle, strides, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        PSANet(**SMALL, **RAW, backbone=own_network(middle, strides), aux_head=False)


def test_it_works_at_the_backbones_own_stride_or_with_a_method():
    for layer in (keras.layers.Lambda(lambda x: 2 * x), Doubling()):
        model = PSANet(**SMALL, **RAW, backbone=own_network(layer), aux_head=False, output_stride=16)
        assert model.feature_size() == (5, 5)
    model = PSANet(**SMALL, **RAW, backbone=own_network(DilatedDoubling()), aux_head=False)
    assert model.feature_size() == (9, 9)
    with pytest.raises(ValueError, match="output_stride=32 is not to be had of backbone 'mine'.*output_stride=16"):
        PSANet(**SMALL, **RAW, backbone=own_network(Doubling()), aux_head=False, output_stride=32)


def vision_transformer():
    images = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(16, 16, strides=16, name="patches")(images)
    x = keras.layers.Reshape((16, 16), name="tokens")(x)
    x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(2, 8)(x, x))
    return keras.Model(images, keras.layers.Reshape((4, 4, 16), name="map")(x), name="vit")


def test_a_vision_transformer_works_at_the_stride_of_its_patches():
    small = SMALL | {"input_shape": (64, 64, 3)}
    model = PSANet(**small, **RAW, backbone=vision_transformer(), output_stride=16, aux_head=False)
    assert model.feature_size() == (4, 4)
    assert model.get_layer("logits").grid == (16, 7.5, 7.5)  # half-pixel centres, as patches have
    with pytest.raises(ValueError, match="'tokens' \\(Reshape\\)"):
        PSANet(**small, **RAW, backbone=vision_transformer(), output_stride=8, aux_head=False)
    with pytest.raises(ValueError, match="of half of the coarsest stride, 16, and the backbone has none"):
        PSANet(**small, **RAW, backbone=vision_transformer(), output_stride=16)


def test_models_inside_a_backbone_are_gone_through():
    inner = keras.Sequential(
        [keras.Input((9, 9, 8)), keras.layers.Conv2D(8, 3, strides=2, padding="same", name="inner_conv")], name="inner"
    )
    images = keras.Input((65, 65, 3))
    x = keras.layers.Conv2D(8, 3, strides=8, padding="same", name="stem")(images)
    base = keras.Model(images, inner(x))
    again = keras.Input((65, 65, 3))
    x = keras.layers.BatchNormalization(name="last_bn")(base(again, training=False))
    backbone = keras.Model(again, x, name="nested")
    built = build_backbone(backbone, (65, 65, 3), 8, ("stem", "last_bn"), True, False, "float32")
    assert [tuple(output.shape) for output in built.model.outputs] == [(None, 9, 9, 8)] * 2
    x = np.random.default_rng(0).normal(size=(1, 65, 65, 3)).astype("float32")
    np.testing.assert_allclose(np.asarray(built.model(x)[1])[:, ::2, ::2], backbone(x), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "ResNet5"}, "backbone 'ResNet5' is not known; .*nearest: ResNet50"),
        ({"backbone": 5}, "backbone must be a keras.Model, a name such as 'ResNet50' or None, got int"),
        ({"backbone": "ResNet50", "backbone_preprocessing": "tf"}, "its own is 'caffe'; leave it out"),
        ({"backbone_preprocessing": "tf"}, "takes normalized images; leave it out"),
        ({"backbone": "ResNet50", "stem": "deep"}, "stem is the ResNet's .*: leave it out beside backbone"),
        ({"backbone": "ResNet50", "blocks": (1, 1, 1, 1)}, "blocks is the ResNet's"),
        ({"output_stride": 4}, "output_stride must be one of 8, 16, 32, got 4"),
        ({"feature_layers": ("layer3_5_out",)}, "feature_layers is for networks with a backbone"),
        ({"backbone": "ResNet50", "feature_layers": "conv4"}, "feature_layers must be names of layers"),
        ({"aux_head": 1}, "aux_head must be True or False"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PSANet(**SMALL, **arguments)


def test_wrong_backbones_and_layers_are_named():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    convnext = shared_backbone("ConvNeXt")
    with pytest.raises(ValueError, match="must be a functional or sequential model: of a subclassed one"):
        PSANet(**SMALL, backbone=Subclassed())
    with pytest.raises(ValueError, match="takes images of 3 channels, input_shape says 4"):
        PSANet(**SMALL | {"input_shape": (65, 65, 4)}, backbone=convnext)
    with pytest.raises(ValueError, match="feature_layers must name two layers"):
        PSANet(**SMALL, backbone=convnext, feature_layers=("convnext_tiny_stem_conv",))
    with pytest.raises(ValueError, match="no layer 'convnext_tiny_stage_2' that gives a map.*convnext_tiny_stage_2_bl"):
        PSANet(**SMALL, backbone=convnext, feature_layers=("convnext_tiny_stage_2",), aux_head=False)
    model = PSANet(**SMALL, backbone=convnext, output_stride=32)
    with pytest.raises(ValueError, match="cannot compute its blocks again"):
        model.rematerialize = True
    from psanet_tf import semseg_state_dict

    with pytest.raises(ValueError, match="has a backbone of its own"):
        semseg_state_dict(model)


def test_every_name_is_of_this_keras_and_of_one_family():
    assert len(BACKBONES) >= 25 and all(hasattr(keras.applications, name) for name in BACKBONES)
    assert {family.preprocessing for family in BACKBONES.values()} <= set(PREPROCESSING)
    model = as_model(shared_backbone("ResNet"), 3, "float32")
    assert model is shared_backbone("ResNet")


def test_features_of_a_single_position_are_features():
    model = PSANet(**SMALL | {"input_shape": (33, 33, 3)}, backbone=shared_backbone("ConvNeXt"), output_stride=32)
    assert model.feature_size() == (1, 1)
    assert model.get_layer("backbone").outputs[-1]._keras_history[0].name.startswith("layer_normalization")
