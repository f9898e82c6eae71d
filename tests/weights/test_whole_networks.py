"""Whole networks from names, addresses and public files, without a configuration; .keras files that say all."""

import hashlib

import numpy as np
import pytest
import safetensors.numpy
from pytorch_writer import save_state_dict
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf import PSANet, Segmenter, mmseg_state_dict, semseg_state_dict
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.keras_api import keras
from psanet_tf.weights import registry
from psanet_tf.weights.checkpoints import load_trained
from psanet_tf.weights.conversion import check_published, convert_weights
from psanet_tf.weights.description import Description, describe, description_of
from psanet_tf.weights.initial_weights import load_initial_weights
from psanet_tf.weights.public_files import network_arguments

NAME = "mmseg/tiny"
TINY = {"blocks": (1, 1, 1, 1), "width": 8}
MMSEG = {"variant": "mmseg", "num_classes": 21, "mask_size": (6, 6), "align_corners": False, **TINY}
SLIDE = {"protocol": "mmseg", "mode": "slide", "scale": (64, 48), "crop_size": (33, 33), "stride": (22, 22)}


@pytest.fixture(scope="module")
def network():
    return PSANet(**MMSEG, input_shape=(None, None, 3), trainable=False)


@pytest.fixture
def published(network, folder, cache, monkeypatch):
    """A published network whose file lies on a server of this machine."""
    path, url = folder
    save_state_dict(path / "tiny.pth", mmseg_state_dict(network), meta={"epoch": 3})
    entry = registry.PublishedWeights(
        NAME,
        url=f"{url}/tiny.pth",
        checksum=f"sha256:{hashlib.sha256((path / 'tiny.pth').read_bytes()).hexdigest()[:8]}",
        naming="mmseg",
        depth=50,
        stem="v1c",
        dataset="voc2012",
        model=MMSEG | {"input_shape": (33, 33, 3)},
        evaluate=SLIDE,
    )
    monkeypatch.setattr(registry, "published_weights", lambda: {NAME: entry})
    return entry


def test_a_name_brings_network_classes_and_protocol(published, network):
    segmenter = Segmenter.load(NAME)
    assert segmenter.classes == dataset_info("voc2012").class_names
    assert segmenter.evaluate == EvaluateSection.model_validate(SLIDE)
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3)).astype(np.uint8)
    expected = Segmenter(network, evaluate=SLIDE).probabilities(image)
    np.testing.assert_allclose(segmenter.probabilities(image), expected, atol=1e-5)
    changed = Segmenter.load(NAME, overrides=["evaluate.flip=true", "evaluate.stride=[11, 11]"])
    assert (changed.evaluate.flip, changed.evaluate.stride) == (True, (11, 11))
    with pytest.raises(ValueError, match=r"the overrides for mmseg/tiny do not fit:\n  evaluate.scale: Input should"):
        Segmenter.load(NAME, overrides=["evaluate.scale=3"])
    with pytest.raises(ValueError, match="only keys of evaluate can be set without --config, got 'model.width=3'"):
        Segmenter.load(NAME, overrides=["model.width=3"])


def differing(model, other):
    """Names of tensors that are not the same in both (the order of `weights` in Keras 2 depends on their flags)."""
    one, two = mmseg_state_dict(model), mmseg_state_dict(other)
    assert set(one) == set(two)
    return sorted(name for name in one if not np.array_equal(one[name], two[name]))


def test_a_converted_file_needs_nothing_else(published, network, tmp_path):
    _register()
    out = tmp_path / "a" / "b" / "net.keras"
    out.parent.mkdir(parents=True)
    result = CliRunner().invoke(app, ["weights", "convert", NAME, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "classes: 21 of voc2012, the first is 'background'" in result.output
    converted = load_trained(out)
    assert differing(converted.model, network) == []
    assert converted.info.class_names == dataset_info("voc2012").class_names
    assert converted.evaluate == EvaluateSection.model_validate(SLIDE)
    assert description_of(converted.model).source == NAME
    with pytest.raises(FileExistsError, match="is there already"):
        convert_weights(NAME, out)
    with pytest.raises(ValueError, match=r"must end in .keras"):
        convert_weights(NAME, tmp_path / "net.h5")


def test_fine_tuning_takes_all_but_the_classifiers(published, network):
    target = PSANet(**MMSEG | {"num_classes": 3, "depth": 50, "input_shape": (33, 33, 3)})
    lines = load_initial_weights(target, NAME)
    assert lines[0].startswith(f"initial weights from {NAME}: {len(network.weights) - 4} of {len(network.weights)} ")
    assert sorted(lines[1:]) == [
        "skipped classifier of the auxiliary head: 21 classes there, 3 here; it starts from random weights",
        "skipped classifier of the main head: 21 classes there, 3 here; it starts from random weights",
    ]
    assert differing(target, network) == [
        f"{head}.conv_seg.{name}" for head in ("auxiliary_head", "decode_head") for name in ("bias", "weight")
    ]
    with pytest.raises(ValueError, match="weights of another network; for theirs: --set model.variant=mmseg --set mo"):
        load_initial_weights(PSANet(3, **TINY, input_shape=(33, 33, 3)), NAME)
    larger = PSANet(**MMSEG | {"mask_size": (8, 8), "input_shape": (33, 33, 3)})
    assert load_initial_weights(larger, NAME)[-1].endswith("other settings; theirs: --set model.mask_size=[6,6]")


def test_checking_counts_tensors(published, network):
    checked = check_published(NAME)
    count = len(network.weights)
    assert checked.lines == (f"loaded  {count} of {count} tensors of the network, and none was left over",)
    assert checked.sha256.startswith(published.checksum.removeprefix("sha256:"))
    assert str(checked.path) in str(checked)


def test_backbones_are_no_networks(cache):
    with pytest.raises(ValueError, match="is a backbone trained on ImageNet, without heads: psanet train --init"):
        load_trained("mmseg/resnet50_v1c")
    assert not cache.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("use_psa", [True, False])
def test_a_file_tells_its_network(tmp_path, capsys, suffix, use_psa):
    model = PSANet(5, **TINY, input_shape=(33, 33, 3), use_psa=use_psa)
    state = semseg_state_dict(model)
    save = save_state_dict if suffix == ".pth" else lambda path, state: safetensors.numpy.save_file(state, path)
    save(tmp_path / f"net{suffix}", state)
    trained = load_trained(tmp_path / f"net{suffix}")
    assert trained.info is None
    for one, two in zip(trained.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    said = capsys.readouterr().err
    assert "does not say how its network was built: taken for variant semseg, num_classes 5" in said
    if use_psa:
        assert trained.model.input_shape == model.input_shape
        assert trained.model.get_config()["mask_size"] == (5, 5)


def test_classes_in_a_public_file(network, tmp_path):
    names = tuple(f"thing {index}" for index in range(21))
    palette = [[index, 2 * index, 255 - index] for index in range(21)]
    meta = {"CLASSES": names, "PALETTE": palette}
    save_state_dict(tmp_path / "net.pth", mmseg_state_dict(network), meta=meta)
    trained = load_trained(tmp_path / "net.pth")
    assert trained.info.class_names == names
    np.testing.assert_array_equal(trained.info.colors, palette)
    assert trained.model.variant == "mmseg"


def test_what_a_file_does_not_tell(network):
    with pytest.raises(ValueError, match="x.pth holds no whole PSANet: the weights of its classifier"):
        network_arguments({"backbone.stem.0.weight": np.zeros((4, 3, 3, 3))}, "x.pth")
    state = mmseg_state_dict(network)
    one_way = {name: value for name, value in state.items() if "_p." not in name}
    with pytest.raises(ValueError, match="does not say whether it collects or distributes"):
        network_arguments(one_way, "x.pth")
    odd = state | {"decode_head.attention.1.weight": np.zeros((35, 64, 1, 1))}
    with pytest.raises(ValueError, match="a mask of 35 offsets is not square, or is compact"):
        network_arguments(odd, "x.pth")
    del state["decode_head.attention.1.weight"]
    with pytest.raises(ValueError, match=r"decode_head.attention.1.weight is missing"):
        network_arguments(state, "x.pth")


def test_descriptions_travel_and_fit(tmp_path):
    model = PSANet(21, **TINY, input_shape=(33, 33, 3), use_psa=False)
    assert description_of(model) is None
    description = Description(dataset_info("voc2012"), EvaluateSection(base_size=40), "somewhere")
    describe(model, description)
    model.save(tmp_path / "net.keras")
    read = description_of(keras.saving.load_model(tmp_path / "net.keras"))
    assert read.to_dict() == description.to_dict()
    assert read.evaluate == description.evaluate
    with pytest.raises(ValueError, match="has 21 classes, its description names 150"):
        describe(model, Description(dataset_info("ade20k")))
    other = description.to_dict()
    other["preprocessing"]["mean"] = [0, 0, 0]
    with pytest.raises(ValueError, match="the network wants images prepared as"):
        Description.from_dict(other)
    with pytest.raises(ValueError, match="not the description of a network"):
        Description.from_dict({"info": 3})
