"""First convolutions of trained networks for images of another number of channels."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from psanet_tf import PSANet, semseg_state_dict
from psanet_tf.weights.first_convolution import folded_kernel
from psanet_tf.weights.initial_weights import load_initial_weights

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 3, 5)).astype(np.float32)
SMALL = {"num_classes": 3, "blocks": (1, 1, 1, 1), "width": 4, "use_psa": False}


@pytest.mark.parametrize("how", ["repeat", "mean"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
def test_equal_channels_give_the_answers_of_a_grey_photograph(how, channels):
    folded = folded_kernel(KERNEL, channels, how)
    assert folded.shape == (3, 3, channels, 5)
    assert folded.dtype == np.float32
    if how == "mean" or channels in (1, 3, 12):
        np.testing.assert_allclose(folded.sum(axis=2), KERNEL.sum(axis=2), atol=1e-5)


def test_repeated_and_mean_weights():
    repeated, mean = (folded_kernel(KERNEL, 4, how) for how in ("repeat", "mean"))
    np.testing.assert_allclose(repeated, KERNEL[:, :, [0, 1, 2, 0]] * 0.75, rtol=1e-6)
    np.testing.assert_allclose(mean, np.repeat(KERNEL.mean(2, keepdims=True), 4, 2) * 0.75, rtol=1e-6, atol=1e-7)
    assert folded_kernel(KERNEL, 3, "mean") is KERNEL
    with pytest.raises(ValueError, match="how must be 'repeat' or 'mean', got 'new'"):
        folded_kernel(KERNEL, 4, "new")


@pytest.fixture
def trained(tmp_path):
    """(network of three channels, its file)"""
    model = PSANet(input_shape=(33, 33, 3), **SMALL)
    path = tmp_path / "rgb.safetensors"
    save_file(semseg_state_dict(model), path)
    return model, path


def test_initial_weights_are_folded_and_said_to_be(trained):
    rgb, path = trained
    model = PSANet(input_shape=(33, 33, 4), **SMALL)
    kernel, there = (one.get_layer("stem_conv1").kernel for one in (model, rgb))
    before = np.asarray(kernel)
    expected = {"new": before, **{how: folded_kernel(np.asarray(there), 4, how) for how in ("repeat", "mean")}}
    for how, weights in expected.items():
        lines = load_initial_weights(model, path, how)
        (line,) = [line for line in lines if line.startswith("first convolution")]
        assert "3 channels there, 4 channels here" in line
        assert np.array_equal(np.asarray(kernel), weights), how
    mine, theirs = semseg_state_dict(model), semseg_state_dict(rgb)
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine if name != "layer0.0.weight")
    with pytest.raises(ValueError, match="first_convolution must be one of repeat, mean, new, got 'sum'"):
        load_initial_weights(model, path, "sum")
