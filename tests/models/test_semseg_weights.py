"""State dicts of the original implementation: there, back, and refused when they do not fit."""

import numpy as np
import pytest

from psanet_tf import PSALayer, PSANet, load_semseg_weights, semseg_state_dict
from psanet_tf.keras_api import keras

SMALL = {"num_classes": 5, "blocks": (1, 2, 1, 1), "width": 4, "input_shape": (33, 33, 3)}


@pytest.fixture
def model():
    return PSANet(**SMALL)


@pytest.fixture
def state(model):
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.5, 1.5, value.shape).astype(value.dtype) for name, value in semseg_state_dict(model).items()
    }


def assert_holds(model, state):
    for name, value in semseg_state_dict(model).items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(value, state[name], err_msg=name)


def test_names_and_shapes_are_the_originals(golden):
    _, meta = golden("psanet50_97x97")
    model = PSANet(meta["classes"], input_shape=(97, 97, 3))
    shapes = {name: list(value.shape) for name, value in semseg_state_dict(model).items()}
    assert shapes == meta["state_dict_shapes"]


def test_round_trip_through_every_weight(model, state):
    load_semseg_weights(model, state)
    assert_holds(model, state)
    assert len(model.weights) == sum("num_batches" not in name for name in state)


def test_prefix_and_wrapping_of_checkpoints_are_understood(model, state):
    load_semseg_weights(model, {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}})
    assert_holds(model, state)


def test_layer_alone():
    layer = PSALayer(mid_channels=4, psa_type="distribute")
    layer.build((None, 9, 9, 6))
    state = {name: value + 1 for name, value in semseg_state_dict(layer).items()}
    assert "attention.3.weight" in state
    load_semseg_weights(layer, state)
    assert_holds(layer, state)


def test_everything_that_does_not_fit_is_listed_and_nothing_changed(model, state):
    before = semseg_state_dict(model)
    broken = dict(state)
    broken["psa.proj.0.wait"] = broken.pop("psa.proj.0.weight")
    broken["cls.4.bias"] = np.zeros(7, "float32")
    with pytest.raises(ValueError) as caught:
        load_semseg_weights(model, broken)
    message = str(caught.value)
    assert "missing: psa.proj.0.weight [128, 64, 1, 1]" in message
    assert "unexpected: psa.proj.0.wait" in message
    assert "cls.4.bias: shape [7], needs [5]" in message
    assert_holds(model, before)


def test_other_targets_are_refused(state):
    with pytest.raises(ValueError, match="must be a PSANet or a PSALayer, got Dense"):
        load_semseg_weights(keras.layers.Dense(3), state)
    with pytest.raises(ValueError, match="has no weights yet"):
        load_semseg_weights(PSALayer(), state)


def test_missing_file_is_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no weights file .*none.pth"):
        load_semseg_weights(model, tmp_path / "none.pth")


def test_file_without_torch_says_what_to_install(model, tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"some bytes")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match="needs PyTorch .pip install torch."):
        load_semseg_weights(model, path)


def test_checkpoint_file(model, state, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    path = tmp_path / "train_epoch_100.pth"
    tensors = {f"module.{name}": torch.from_numpy(value.copy()) for name, value in state.items()}
    torch.save({"epoch": 100, "state_dict": tensors, "optimizer": {}}, path)
    load_semseg_weights(model, path)
    assert_holds(model, state)


@pytest.mark.parametrize("damage", ["cut", "text", "list"])
def test_file_that_is_no_checkpoint(model, state, tmp_path, damage):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    path = tmp_path / "weights.pth"
    torch.save([1, 2] if damage == "list" else {k: torch.from_numpy(v.copy()) for k, v in state.items()}, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-2000])
    elif damage == "text":
        path.write_text("<html>not found</html>")
    before = semseg_state_dict(model)
    with pytest.raises(ValueError, match="weights.pth (is not a readable PyTorch checkpoint|must hold a dict)"):
        load_semseg_weights(model, path)
    assert_holds(model, before)
