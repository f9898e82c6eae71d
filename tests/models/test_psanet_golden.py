"""PSANet-50 against the original's logits and stage features."""

import numpy as np
import pytest
from procedural_weights import state_dict

from psanet_tf import PSANet, load_semseg_weights, semseg_state_dict
from psanet_tf.keras_api import keras

LIMIT = 2e-5
FEATURES = {
    "layer0": "stem_pool",
    "layer1": "layer1_2_out",
    "layer2": "layer2_3_out",
    "layer3": "layer3_5_out",
    "layer4": "layer4_2_out",
    "psa": "psa",
    "cls": "head_classifier",
}


@pytest.mark.parametrize(
    "name",
    ["psanet50_97x97", pytest.param("psanet50_113x81", marks=pytest.mark.any_keras)],  # one is enough to tell
)
def test_logits_and_features_are_the_originals(golden, name):
    arrays, meta = golden(name)
    model = PSANet(
        meta["classes"],
        depth=meta["layers"],
        input_shape=(meta["H"], meta["W"], 3),
        psa_type=meta["psa_type"],
        shrink_factor=meta["shrink_factor"],
        mask_size=(meta["mask_h"], meta["mask_w"]),
    )
    load_semseg_weights(model, state_dict(meta["state_dict_shapes"], meta["weights_seed"]))
    shapes = {name: list(value.shape) for name, value in semseg_state_dict(model).items()}
    assert shapes == meta["state_dict_shapes"]
    outputs = {"logits": model.output["logits"], "aux_logits_stride8": model.get_layer("aux_classifier").output}
    outputs |= {f"feature/{stage}": model.get_layer(layer).output for stage, layer in FEATURES.items()}
    results = keras.Model(model.inputs[0], outputs)(arrays["x"], training=False)
    steps = meta["feature_channel_step"]
    for key, result in results.items():
        result, expected = np.asarray(result), arrays[key]
        stage = key.partition("/")[2]
        if stage:
            result = result[:1, ..., :: steps[stage]]
        error = np.max(np.abs(result - expected)) / np.max(np.abs(expected))
        assert error <= LIMIT, f"{key}: {error:.2g}"
    np.testing.assert_array_equal(model.inference()(arrays["x"]), results["logits"])
