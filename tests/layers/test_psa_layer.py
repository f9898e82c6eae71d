"""`PSALayer` against the original's numbers."""

import numpy as np
import pytest
import tensorflow as tf
from procedural_weights import state_dict

from psanet_tf import PSALayer, load_semseg_weights, semseg_state_dict
from psanet_tf.weights.naming import SEMSEG

# Under legacy Keras each kind of layer, one of them without softmax; mask sizes are not Keras's concern.
FOR_BOTH = ("m00", "m08", "m14", "m18")
CASES = [
    pytest.param(key, marks=() if key in FOR_BOTH else pytest.mark.any_keras)
    for key in (f"m{number:02d}" for number in range(21))
]


def golden_layer(case, **kwargs):
    layer = PSALayer(
        mid_channels=case["mid_channels"],
        psa_type=case["psa_type"],
        compact=case["compact"],
        shrink_factor=case["shrink_factor"],
        mask_size=(case["mask_h"], case["mask_w"]),
        normalization_factor=case["normalization_factor"],
        psa_softmax=case["psa_softmax"],
        **kwargs,
    )
    layer.build((None, case["H"], case["W"], case["in_channels"]))
    load_semseg_weights(layer, state_dict(case["state_dict_shapes"], case["weights_seed"]))
    return layer


def assert_close(actual, expected, name, limit=1e-5):
    error = np.max(np.abs(np.asarray(actual) - expected)) / np.max(np.abs(expected))
    assert error <= limit, f"{name}: {error:.2g} of the largest entry, limit {limit}"


@pytest.mark.parametrize("key", CASES)
def test_outputs_gradients_and_statistics_are_the_originals(golden, key):
    arrays, cases = golden("psa_layer")
    case = next(case for case in cases if case["key"] == key)
    for mode in ("eval", "train"):
        layer = golden_layer(case)
        variables = {name: v for name, v in SEMSEG.variables(layer).items() if "running" not in name}
        x = tf.constant(arrays[f"{key}/x"])
        weights = [v if isinstance(v, tf.Variable) else v.value for v in variables.values()]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=mode == "train")
        gx, *gradients = tape.gradient(y, [x, *weights], arrays[f"{key}/gy"])
        assert_close(y, arrays[f"{key}/{mode}/y"], "y")
        assert_close(gx, arrays[f"{key}/{mode}/gx"], "gx")
        for name, gradient in zip(variables, gradients, strict=True):
            expected = arrays[f"{key}/{mode}/g/{name}"]
            if gradient.shape.rank == 4:
                gradient = tf.transpose(gradient, [3, 2, 0, 1])
            assert_close(gradient, expected, name)
        state = semseg_state_dict(layer)
        buffers = [name for name in arrays.files if name.startswith(f"{key}/{mode}/buffer/")]
        for name in buffers:
            buffer = name.rpartition("/")[2]
            if not buffer.endswith("num_batches_tracked"):
                assert_close(state[buffer], arrays[name], buffer)
        assert bool(buffers) == (mode == "train")
