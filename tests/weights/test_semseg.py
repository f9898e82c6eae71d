"""State dicts of the original implementation: there, back, and refused when they do not fit."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import procedural_weights
import pytest
import safetensors.numpy
from pytorch_writer import save_state_dict, write

from psanet_tf import PSALayer, PSANet, load_semseg_weights, semseg_state_dict
from psanet_tf.keras_api import keras
from psanet_tf.weights.public_weights import WeightsMismatchError

PTH = Path(__file__).parents[1] / "golden" / "pth"
SMALL = {"num_classes": 5, "blocks": (1, 2, 1, 1), "width": 4, "input_shape": (33, 33, 3)}


@pytest.fixture(scope="module")
def model():
    return PSANet(**SMALL)


@pytest.fixture(scope="module")
def state(model):
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.5, 1.5, value.shape).astype(value.dtype) for name, value in semseg_state_dict(model).items()
    }


def assert_holds(model, state):
    for name, value in semseg_state_dict(model).items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(value, state[name], err_msg=name)


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


def broken_values(state):
    broken = dict(state)
    broken["layer1.0.conv1.weight"] = broken["layer1.0.conv1.weight"].astype("float64")
    broken["layer1.0.conv1.weight"].flat[3] = 1e300  # infinite in float32
    broken["psa.proj.1.bias"] = np.where(np.arange(128) < 2, np.nan, broken["psa.proj.1.bias"])
    broken["cls.1.running_var"] = -broken["cls.1.running_var"]
    broken["aux.4.bias"] = broken["aux.4.bias"] > 0
    return broken


@pytest.mark.parametrize("skip_mismatch", [False, True])
def test_a_bad_value_is_named_and_nothing_changed(model, state, skip_mismatch):
    before = semseg_state_dict(model)
    with pytest.raises(WeightsMismatchError) as caught:
        load_semseg_weights(model, broken_values(state), skip_mismatch=skip_mismatch)
    assert caught.value.problems == [
        "layer1.0.conv1.weight: 1 of 32 values are NaN or infinite",
        "psa.proj.1.bias: 2 of 128 values are NaN or infinite",
        f"cls.1.running_var: a variance of {-state['cls.1.running_var'].max():.3g}, needs at least 0",
        "aux.4.bias: dtype bool, needs real numbers",
    ]
    assert_holds(model, before)


def test_numbers_of_other_dtypes_are_converted(model, state):
    whole = {name: np.round(value).astype("int64") for name, value in state.items()}
    load_semseg_weights(model, whole)
    assert_holds(model, whole)


def test_long_lists_of_problems_are_cut(model):
    with pytest.raises(WeightsMismatchError, match=r"(?s)missing: layer0.0.weight.*\n  and \d+ more$") as caught:
        load_semseg_weights(model, {})
    assert len(str(caught.value).splitlines()) == 22
    assert len(caught.value.problems) == len(model.weights)


def test_parts(model, state):
    before = semseg_state_dict(model)
    backbone = {name: value for name, value in state.items() if name.startswith("layer")}
    result = load_semseg_weights(model, backbone, parts="backbone")
    assert_holds(model, before | backbone)
    assert set(result.loaded) == {name for name in backbone if "num_batches" not in name}
    assert (result.skipped, result.unused) == ({}, [])
    # What the other parts hold does not matter.
    load_semseg_weights(model, state | {"cls.4.bias": np.zeros(7)}, parts=("backbone", "psa"))
    attention = {name: value for name, value in state.items() if name.startswith("psa")}
    assert_holds(model, before | backbone | attention)
    with pytest.raises(WeightsMismatchError, match="missing: psa.reduce.0.weight"):
        load_semseg_weights(model, backbone, parts=["backbone", "psa"])


def test_what_does_not_fit_is_skipped_where_that_is_asked_for(model, state):
    before = semseg_state_dict(model)
    other = dict(state)
    other["cls.4.weight"], other["cls.4.bias"] = np.zeros([7, 32, 1, 1]), np.zeros(7)
    del other["aux.4.bias"]
    other["ppm.0.weight"] = np.zeros(3)
    result = load_semseg_weights(model, other, skip_mismatch=True)
    assert result.skipped == {
        "cls.4.weight": "shape [7, 32, 1, 1], needs [5, 32, 1, 1]",
        "cls.4.bias": "shape [7], needs [5]",
        "aux.4.bias": "not in the source",
    }
    assert result.unused == ["ppm.0.weight"]
    assert_holds(model, state | {name: before[name] for name in result.skipped})
    with pytest.raises(WeightsMismatchError) as caught:
        load_semseg_weights(model, other, skip_mismatch=("psa", "head"))
    assert caught.value.problems == ["missing: aux.4.bias [5]"]
    with pytest.raises(WeightsMismatchError, match="nothing in it fits"):
        load_semseg_weights(model, {"ppm.0.weight": np.zeros(3)}, skip_mismatch=True)


def test_names_of_a_classification_network_are_understood(model, state):
    stem = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
    named = {"fc.weight": np.zeros([10, 64])}
    for name, value in state.items():
        module, index, leaf = (name.split(".", 2) + [""] * 2)[:3]
        if name.startswith("layer"):
            named[f"{stem[index]}.{leaf}" if module == "layer0" else name] = value
    before = semseg_state_dict(model)
    load_semseg_weights(model, named, parts="backbone")
    assert_holds(model, before | {name: value for name, value in state.items() if name.startswith("layer")})


def test_parts_of_a_layer_alone():
    layer = PSALayer(mid_channels=4, psa_type="collect")
    layer.build((None, 9, 9, 6))
    state = semseg_state_dict(layer)
    other = {name: value + 1 for name, value in state.items()} | {"attention.3.weight": np.zeros([25, 4, 1, 1])}
    result = load_semseg_weights(layer, other, skip_mismatch=True)
    assert result.skipped == {"attention.3.weight": "shape [25, 4, 1, 1], needs [81, 4, 1, 1]"}
    assert_holds(layer, other | {"attention.3.weight": state["attention.3.weight"]})
    with pytest.raises(ValueError, match="parts is for the parts of a PSANet; .* is a PSALayer, got 'psa'"):
        load_semseg_weights(layer, state, parts="psa")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": "neck"}, "parts must be one or more of 'backbone', 'psa', 'head', 'aux', got 'neck'"),
        ({"parts": ()}, r"parts must be one or more of .* got \(\)"),
        ({"parts": 3}, "parts must be one or more of .* got 3"),
        ({"skip_mismatch": "heads"}, "skip_mismatch must be True, False, or one or more of .* got 'heads'"),
    ],
)
def test_wrong_parts_are_named(model, state, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_semseg_weights(model, state, **arguments)


def test_other_targets_are_refused(state):
    with pytest.raises(ValueError, match="must be a PSANet or a PSALayer, got Dense"):
        load_semseg_weights(keras.layers.Dense(3), state)
    with pytest.raises(ValueError, match="has no weights yet"):
        load_semseg_weights(PSALayer(), state)


@pytest.mark.parametrize("source", [None, 3, [1, 2]])
def test_other_sources_are_refused(model, source):
    with pytest.raises(
        TypeError,
        match="source must be a mapping from names to arrays, or the path of a .pth or .safetensors file, got",
    ):
        load_semseg_weights(model, source)


def test_entries_that_are_no_arrays_are_refused(model, state):
    with pytest.raises(ValueError, match="the entry 'model' of source is no array of numbers but dict"):
        load_semseg_weights(model, {"epoch": 3, "model": state})
    with pytest.raises(ValueError, match="the entry 'cls.4.bias' of source is no array of numbers but str"):
        load_semseg_weights(model, state | {"cls.4.bias": "zeros"})
    with pytest.raises(TypeError, match="the state_dict of source must be a mapping .* got list"):
        load_semseg_weights(model, {"state_dict": [1]})


def test_paths_that_are_no_checkpoint(model, tmp_path):
    wanted = "wanted is a file of weights, .pth or .safetensors"
    with pytest.raises(FileNotFoundError, match=f"there is no weights file .*none.pth; {wanted}"):
        load_semseg_weights(model, tmp_path / "none.pth")
    with pytest.raises(ValueError, match=f"is a folder; {wanted}"):
        load_semseg_weights(model, tmp_path)
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=f"page.pth holds no weights but text; {wanted}"):
        load_semseg_weights(model, str(tmp_path / "page.pth"))
    (tmp_path / "cut.pth").write_bytes((PTH / "cut.pth").read_bytes())
    with pytest.raises(ValueError, match="cut.pth holds no weights but a zip archive that is cut short"):
        load_semseg_weights(model, tmp_path / "cut.pth")


@pytest.fixture(scope="module")
def pytorchs():
    """(model, meta) of the checkpoints in tests/golden/pth."""
    meta = json.loads((PTH / "meta.json").read_text())
    return PSANet(**{key: meta[key] for key in ("num_classes", "blocks", "width", "input_shape")}), meta


@pytest.mark.parametrize("name", ["zip", "zip_channels_last", "legacy", "zip_float16", "legacy_bfloat16"])
def test_checkpoints_that_pytorch_wrote(pytorchs, name):
    model, meta = pytorchs
    model.set_weights([np.full_like(weight, 9.0) for weight in model.get_weights()])
    load_semseg_weights(model, PTH / f"{name}.pth")
    expected = procedural_weights.state_dict(meta["state_dict_shapes"], meta["weights_seed"])
    dtype = {"zip_float16": np.float16, "legacy_bfloat16": ml_dtypes.bfloat16}.get(name, np.float32)
    assert_holds(model, {key: value.astype(dtype).astype(np.float32) for key, value in expected.items()})


def test_a_checkpoint_that_wants_something_run_changes_nothing(model):
    before = semseg_state_dict(model)
    with pytest.raises(ValueError, match="wants posix.system to be called"):
        load_semseg_weights(model, PTH / "evil.pth")
    assert_holds(model, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_safetensors(model, state, tmp_path, dtype):
    state = {name: value.astype(dtype) for name, value in state.items() if not name.endswith("num_batches_tracked")}
    safetensors.numpy.save_file(state, tmp_path / "net.safetensors")
    load_semseg_weights(model, tmp_path / "net.safetensors")
    assert_holds(model, state)
    whole = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "net.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"net\.safetensors is not a readable \.safetensors file, or is cut short"):
        load_semseg_weights(model, tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1, 2], "must hold a dict of tensors, got list"),
        ({"epoch": 3}, r"a dict without tensors; its entries: \['epoch'"),
    ],
)
def test_checkpoints_without_tensors(model, tmp_path, tree, message):
    with pytest.raises(ValueError, match=message):
        load_semseg_weights(model, write(tmp_path / "weights.pth", tree, {}))


LARGE = """
    import resource, sys
    import numpy as np
    from psanet_tf import PSALayer, load_semseg_weights

    layer = PSALayer(mid_channels=2400, mask_size=(59, 59))
    layer.build((None, 9, 9, 2400))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    load_semseg_weights(layer, sys.argv[1])
    print(float(layer.get_weights()[0].flat[0]), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.extended
@pytest.mark.any_keras
def test_a_large_file_takes_little_more_memory_than_it_is_long(tmp_path):
    """What comes on top of the layer that is filled: 200 MB mapped, and one array at a time in another layout."""
    mid = 2400
    shapes = {"proj.0.weight": (mid, 2 * mid, 1, 1)}
    for suffix in ("", "_p"):
        shapes |= {f"reduce{suffix}.0.weight": (mid, mid, 1, 1), f"attention{suffix}.0.weight": (mid, mid, 1, 1)}
        shapes[f"attention{suffix}.3.weight"] = (59 * 59, mid, 1, 1)
    for norm in ("reduce.1", "reduce_p.1", "attention.1", "attention_p.1", "proj.1"):
        shapes |= {f"{norm}.{leaf}": (mid,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    numbers = np.full(59 * 59 * mid + 2 * mid * mid, 0.25, np.float32)
    state = {name: numbers[: np.prod(shape)].reshape(shape) for name, shape in shapes.items()}
    path = save_state_dict(tmp_path / "large.pth", state)
    size = path.stat().st_size
    assert size > 200e6
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LARGE), str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    ).stdout
    value, memory = map(float, output.split())
    assert value == 0.25
    assert memory <= 1.3 * size
