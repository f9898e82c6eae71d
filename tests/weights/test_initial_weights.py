"""Weights from other runs and other projects."""

import functools
import importlib
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image
from pytorch_writer import save_state_dict

from psanet_tf import PSANet
from psanet_tf.data.normalization import MEAN, STD
from psanet_tf.keras_api import LEGACY_KERAS, keras
from psanet_tf.weights.backbones import CAFFE_MEAN, from_keras_applications, read_keras_applications
from psanet_tf.weights.initial_weights import load_initial_weights
from psanet_tf.weights.naming import SEMSEG
from psanet_tf.weights.semseg import semseg_state_dict
from psanet_tf.weights.state_dicts import from_torch_layout

SMALL = {"blocks": (1, 1, 1, 1), "width": 4, "input_shape": (33, 33, 3)}

# Keras's writer of the older format that keras.applications downloads.
h5_format = importlib.import_module(
    f"{keras.__name__}.src.{'saving.legacy.hdf5_format' if LEGACY_KERAS else 'legacy.saving.legacy_h5_format'}"
)


def short_name(variable):
    """ "kernel"; Keras 2 says "conv1/kernel:0"."""
    return variable.name.rpartition("/")[2].partition(":")[0]


def randomize(model, seed=0):
    """Weights and statistics that are neither initial nor symmetric."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        value = variable.numpy()
        name = short_name(variable)
        if name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, value.shape)
        elif name in ("beta", "bias", "moving_mean"):
            value = rng.normal(0, 0.2, value.shape)
        variable.assign(value)


@functools.cache
def built(num_classes, which, options):
    return PSANet(num_classes, **SMALL, **dict(options))


def small(num_classes=3, which="source", **options):
    """A network that is built once for all tests, with weights that no other has."""
    model = built(num_classes, which, tuple(options.items()))
    randomize(model, seed=num_classes)
    rng = np.random.default_rng([num_classes, which == "target"])
    for variable in model.weights:
        if short_name(variable) == "kernel":
            variable.assign(rng.normal(0, 0.1, variable.shape))
    return model


def same(model, other, part=""):
    one, two = semseg_state_dict(model), semseg_state_dict(other)
    names = [name for name in one if name.startswith(part)]
    return bool(names) and all(np.array_equal(one[name], two[name]) for name in names)


@pytest.fixture(scope="module")
def resnet50():
    network = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(97, 97, 3))
    randomize(network)
    return network


@pytest.fixture(scope="module")
def classic():
    return PSANet(3, input_shape=(97, 97, 3), stem="classic", stride_in_1x1=True, use_psa=False)


def test_backbone_equals_keras_applications(resnet50, classic):
    """The dilated stages at every 2nd and 4th position are the strided ones of the classification network."""
    names = ("2_block3", "3_block4", "4_block6", "5_block3")
    theirs = keras.Model(resnet50.input, [resnet50.get_layer(f"conv{name}_out").output for name in names])
    ours = keras.Model(classic.input, [classic.get_layer(f"layer{n}_out").output for n in ("1_2", "2_3", "3_5", "4_2")])
    images = np.random.default_rng(0).uniform(0, 255, (2, 97, 97, 3)).astype(np.float32)

    def errors(mean):
        state = from_keras_applications(resnet50, mean)
        for name, variable in SEMSEG.variables(classic).items():
            if name in state:
                variable.assign(from_torch_layout(state[name]))
        stages = zip(ours((images - MEAN) / STD), theirs(images[..., ::-1] - mean), (1, 1, 2, 4), strict=True)
        return [relative_error(got[:, ::stride, ::stride], want) for got, want, stride in stages]

    # Where zero padding is the same colour in both, they are equal; else they differ by that colour.
    assert max(errors(mean=MEAN[::-1])) < 2e-5
    assert max(errors(mean=CAFFE_MEAN)) < 1e-2


def relative_error(got, want):
    return float(np.max(np.abs(got - want)) / np.max(np.abs(want)))


@pytest.mark.parametrize("file", ["resnet50.weights.h5", "resnet50_notop.h5", "resnet50_top.h5"])
def test_files_of_keras_applications(resnet50, classic, tmp_path, file):
    network = resnet50
    if file == "resnet50_top.h5":
        features = keras.layers.GlobalAveragePooling2D(name="avg_pool")(resnet50.output)
        network = keras.Model(resnet50.input, keras.layers.Dense(1000, name="predictions")(features))
    if file.endswith(".weights.h5"):
        network.save_weights(tmp_path / file)
    else:  # the older format that keras.applications downloads
        with h5py.File(tmp_path / file, "w") as group:
            h5_format.save_weights_to_hdf5_group(group, network)
    randomize(classic, seed=9)
    lines = load_initial_weights(classic, tmp_path / file)
    expected = from_keras_applications(resnet50)
    state = semseg_state_dict(classic)
    assert all(np.array_equal(state[name], value) for name, value in expected.items())
    assert any("skipped main head: not in the file" in line for line in lines)


def test_an_earlier_run(tmp_path):
    source, target = small(), small(which="target")
    randomize(source, seed=7)
    source.save(tmp_path / "x.keras")
    assert not same(source, target)
    lines = load_initial_weights(target, tmp_path / "x.keras")
    assert same(source, target)
    assert len(lines) == 1


def test_a_head_with_another_class_count_is_skipped_and_said_so(tmp_path):
    source, target = small(3), small(5)
    before = semseg_state_dict(target)
    source.save(tmp_path / "x.keras")
    lines = load_initial_weights(target, tmp_path / "x.keras")
    assert all(same(source, target, part) for part in ("layer", "psa.", "cls.0", "cls.1", "aux.0", "aux.1"))
    for name in ("cls.4.weight", "cls.4.bias", "aux.4.weight"):
        np.testing.assert_array_equal(semseg_state_dict(target)[name], before[name])
    expected = "skipped classifier of the {} head: 3 classes there, 5 here; it starts from random weights"
    assert sorted(lines[1:]) == [expected.format("auxiliary"), expected.format("main")]


def test_another_mask_size_and_no_attention_are_said_so(tmp_path):
    small().save(tmp_path / "x.keras")
    lines = load_initial_weights(small(mask_size=(3, 3)), tmp_path / "x.keras")
    assert any("psa.attention.3.weight: shape [25, 32, 1, 1], needs [9, 32, 1, 1]" in line for line in lines)
    small(use_psa=False).save(tmp_path / "fcn.keras")
    lines = load_initial_weights(small(), tmp_path / "fcn.keras")
    assert any("skipped attention module: not in the file" in line for line in lines)


def test_pth_files(tmp_path):
    source = small()

    def write(state):
        return save_state_dict(tmp_path / "x.pth", state)

    whole = {f"module.{name}": value for name, value in semseg_state_dict(source).items()}
    target = small(4)
    load_initial_weights(target, write(whole))
    assert same(source, target, "psa.") and same(source, target, "layer")

    deep = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
    target = small(4)
    load_initial_weights(target, write(backbone_names(source, deep)))
    assert same(source, target, "layer") and not same(source, target, "psa.")

    source, target = small(stem="classic"), small(4, stem="classic")
    lines = load_initial_weights(target, write(backbone_names(source, {"0": "conv1", "1": "bn1"})))
    assert same(source, target, "layer")
    assert any("skipped auxiliary head: not in the file" in line for line in lines)


def backbone_names(model, stem):
    """A classification ResNet's state dict as torchvision names it."""
    state = {"fc.weight": np.zeros((10, 64), np.float32), "fc.bias": np.zeros(10, np.float32)}
    for name, value in semseg_state_dict(model).items():
        part, _, rest = name.partition(".")
        if part == "layer0":
            index, _, leaf = rest.partition(".")
            state[f"{stem[index]}.{leaf}"] = value
        elif part.startswith("layer"):
            state[name] = value
    return state


def test_a_backbone_of_another_shape_changes_nothing(tmp_path):
    target = small()
    before = semseg_state_dict(target)
    PSANet(3, input_shape=(33, 33, 3), blocks=(1, 2, 1, 1), width=4).save(tmp_path / "x.keras")
    with pytest.raises(ValueError, match=r"(?s)train.init: .*x.keras does not fit this network.*unexpected: layer2.1"):
        load_initial_weights(target, tmp_path / "x.keras")
    small(stem="classic").save(tmp_path / "y.keras")
    with pytest.raises(ValueError, match=r"missing: layer0.3.weight"):
        load_initial_weights(target, tmp_path / "y.keras")
    assert all(np.array_equal(value, before[name]) for name, value in semseg_state_dict(target).items())


def test_values_that_are_not_finite_change_nothing(tmp_path):
    source, target = small(), small(4)
    before = semseg_state_dict(target)
    source.get_layer("psa").proj_bn.moving_mean.assign(np.full(128, np.nan))
    source.save(tmp_path / "x.keras")
    with pytest.raises(ValueError, match=r"(?s)train.init: .*x.keras.*psa.proj.1.running_mean: 128 of 128 values"):
        load_initial_weights(target, tmp_path / "x.keras")
    assert all(np.array_equal(value, before[name]) for name, value in semseg_state_dict(target).items())


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        load_initial_weights(small(), tmp_path / "nothing.pth")
    (tmp_path / "x.keras").write_bytes(b"PK")
    with pytest.raises(ValueError, match="not a .keras file"):
        load_initial_weights(small(), tmp_path / "x.keras")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["other"] = 1
    with pytest.raises(ValueError, match=r"no ResNet with \[1, 1, 1, 1\] blocks"):
        load_initial_weights(small(stem="classic", stride_in_1x1=True), tmp_path / "x.h5")
    with pytest.raises(ValueError, match="need model.stem: classic and model.stride_in_1x1: true"):
        load_initial_weights(small(stem="classic"), tmp_path / "x.h5")
    with pytest.raises(ValueError, match="holds no weights of keras.applications.ResNet50"):
        read_keras_applications(tmp_path / "x.h5", (3, 4, 6, 3))


def test_what_is_given_in_place_of_weights_is_named_with_what_is_wanted(tmp_path):
    target = small()
    before = semseg_state_dict(target)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.pth", "PNG")
    (tmp_path / "notes.txt").write_text("Gewichte für später\n", encoding="utf-8")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "noise.pth").write_bytes(bytes(range(1, 256)))
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.jpg", b"")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "images.zip").read_bytes()[:60])
    (tmp_path / "folder").mkdir()
    for name, what in (
        ("photo.jpg", r"an image \(JPEG\)"),
        ("photo.pth", r"an image \(PNG\)"),
        ("notes.txt", "text"),
        ("empty.pth", "nothing: it is empty"),
        ("noise.pth", "other data"),
        ("images.zip", "a zip archive of a.jpg"),
        ("cut.pth", "a zip archive that is cut short"),
    ):
        with pytest.raises(
            ValueError, match=rf"train.init: .*{name} holds no weights but {what}.*; wanted is imagenet, a name"
        ):
            load_initial_weights(target, tmp_path / name)
    with pytest.raises(
        FileNotFoundError, match=r"train.init: .*folder holds neither best.keras .*; wanted is imagenet, a name"
    ):
        load_initial_weights(target, tmp_path / "folder")
    with pytest.raises(
        FileNotFoundError, match=r"train.init: there is no file or run folder .*; wanted is imagenet, a name"
    ):
        load_initial_weights(target, tmp_path / "nothing")
    assert all(np.array_equal(value, before[name]) for name, value in semseg_state_dict(target).items())
