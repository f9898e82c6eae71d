"""Weights by name and by URL, in the library and on the command line."""

import dataclasses
import hashlib

import numpy as np
import pytest
from pytorch_writer import save_state_dict
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf import PSANet, semseg_state_dict
from psanet_tf.weights import registry
from psanet_tf.weights.fetch import cached_file, fetch_weights, is_remote
from psanet_tf.weights.initial_weights import load_initial_weights

NAME = "torchvision/resnet50_imagenet1k_v1"
SMALL = {"num_classes": 3, "blocks": (1, 1, 1, 1), "width": 4, "input_shape": (33, 33, 3)}


@pytest.fixture
def published(folder, monkeypatch):
    """NAME, with its file on this machine."""
    path, url = folder
    (path / "resnet50.pth").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    entry = registry.published_weights()[NAME]
    entry = dataclasses.replace(entry, url=f"{url}/resnet50.pth", checksum=f"sha256:{digest[:8]}")
    entries = registry.published_weights() | {NAME: entry}
    monkeypatch.setattr(registry, "published_weights", lambda: entries)
    return entry


def run(*arguments):
    _register()
    return CliRunner().invoke(app, list(arguments))


def test_a_name_is_fetched_once_and_kept(published, folder, cache):
    path = fetch_weights(NAME)
    assert path == cache / "torchvision" / "resnet50.pth"
    assert path.read_bytes() == b"weights"
    (folder[0] / "resnet50.pth").unlink()
    assert fetch_weights(NAME) == path


def test_a_file_that_is_not_the_published_one_is_not_kept(published, folder, cache):
    (folder[0] / "resnet50.pth").write_bytes(b"another")
    with pytest.raises(ValueError, match="is not the file that it should be and was removed"):
        fetch_weights(NAME)
    assert not cached_file(NAME).exists()


def test_files_of_one_name_at_two_addresses_are_two(folder, cache):
    path, url = folder
    for part in ("a", "b"):
        (path / part).mkdir()
        (path / part / "net.pth").write_text(part)
    assert [fetch_weights(f"{url}/{part}/net.pth").read_text() for part in ("a", "b")] == ["a", "b"]
    with pytest.raises(ValueError, match="ends in no name of a file"):
        fetch_weights(url)


def test_names_urls_and_paths_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_remote("https://host/net.pth")
    assert is_remote("mmseg/resnet50_v1c")
    assert not is_remote("runs/ade") and not is_remote("net.pth")
    # A file that is there is meant, whatever its name.
    (tmp_path / "mmseg").mkdir()
    (tmp_path / "mmseg" / "net.pth").touch()
    assert not is_remote("mmseg/net.pth")


def test_initial_weights_from_a_url(folder, cache):
    path, url = folder
    source, target = PSANet(**SMALL), PSANet(**SMALL)
    save_state_dict(path / "net.pth", semseg_state_dict(source))
    lines = load_initial_weights(target, f"{url}/net.pth")
    assert "tensors taken" in lines[0]
    taken = semseg_state_dict(target)
    for name, value in semseg_state_dict(source).items():
        np.testing.assert_array_equal(taken[name], value)


def test_imagenet_stands_for_the_backbone_that_fits(monkeypatch):
    asked = []

    def refuse(source):
        asked.append(source)
        raise OSError("no network")

    monkeypatch.setattr("psanet_tf.weights.initial_weights.fetch_weights", refuse)
    monkeypatch.setattr("psanet_tf.models.psanet.BLOCKS", {50: (1, 1, 1, 1)})
    model = PSANet(3, stem="classic", stride_in_1x1=True, input_shape=(33, 33, 3), use_psa=False)
    with pytest.raises(OSError, match="no network"):
        load_initial_weights(model, "imagenet")
    assert asked == ["keras/resnet50_imagenet"]
    with pytest.raises(ValueError, match="train.init: imagenet needs a network of model.depth 50, 101 or 152"):
        load_initial_weights(PSANet(**SMALL), "imagenet")


def test_a_stem_without_published_weights_is_told(monkeypatch):
    monkeypatch.setattr("psanet_tf.models.psanet.BLOCKS", {50: (1, 1, 1, 1)})
    model = PSANet(3, input_shape=(33, 33, 3), use_psa=False)
    with pytest.raises(ValueError, match="train.init: imagenet: no ImageNet weights are published for"):
        load_initial_weights(model, "imagenet")


def test_the_command_lists_shows_and_fetches(published, cache):
    result = run("weights", "list")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert len(lines) == 1 + len(registry.published_weights())
    line = next(line for line in lines if "psanet_r101-d8_4xb4-160k_ade20k-512x512" in line)
    assert " ".join(line.split()[1:]) == "101 ade20k mIoU 43.74, mIoU, multi-scale 45.38"

    assert len(run("weights", "list", "resnet101", "--backbones").output.splitlines()) == 1 + 4
    assert "(not fetched yet)" in run("weights", "show", NAME).output
    result = run("weights", "fetch", NAME)
    assert result.exit_code == 0, result.output
    assert str(cache / "torchvision" / "resnet50.pth") in result.output
    shown = run("weights", "show", NAME).output
    assert published.checksum in shown and "BSD-3-Clause" in shown and "not fetched yet" not in shown
    assert run("weights", "list", NAME).output.split()[-1] == "yes"


def test_a_wrong_name_on_the_command_line():
    result = run("weights", "fetch", "torchvision/resnet50")
    assert isinstance(result.exception, ValueError)
    assert "nearest: torchvision/resnet50_imagenet1k_v" in str(result.exception)
    assert isinstance(run("weights", "list", "vgg").exception, ValueError)
