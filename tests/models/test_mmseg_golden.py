"""MMSegmentation's PSANet-50: its logits, stage features and names."""

import numpy as np
import pytest
from procedural_weights import state_dict

from psanet_tf import PSANet, load_mmseg_weights, mmseg_state_dict
from psanet_tf.keras_api import keras

LIMIT = 2e-5
OUTPUTS = {
    "logits_coarse": "head_classifier",
    "aux_logits_coarse": "aux_classifier",
    "logits": "logits",
    "feature/layer1": "layer1_2_out",
    "feature/layer2": "layer2_3_out",
    "feature/layer3": "layer3_5_out",
    "feature/layer4": "layer4_2_out",
}


# Under legacy Keras the original's golden numbers (test_psanet_golden.py) stand for these.
pytestmark = pytest.mark.any_keras


# The network for any size equals that for one size, in test_mmseg_variant.py: one of each here.
@pytest.mark.parametrize(
    ("name", "static"),
    [("mmseg_psanet50_128x96", False), ("mmseg_psanet50_97x113_align_corners", True)],
)
def test_logits_and_features_are_mmsegmentations(golden, name, static):
    arrays, meta = golden(f"mmseg/{name}")
    model = PSANet(
        meta["classes"],
        depth=meta["depth"],
        input_shape=(meta["H"], meta["W"], 3) if static else (None, None, 3),
        variant="mmseg",
        mask_size=meta["mask_size"],
        align_corners=meta["align_corners"],
    )
    load_mmseg_weights(model, state_dict(meta["state_dict_shapes"], meta["weights_seed"]))
    outputs = {key: model.get_layer(layer).output for key, layer in OUTPUTS.items()}
    results = keras.Model(model.inputs[0], outputs)(arrays["x"], training=False)
    for key, result in results.items():
        result, expected = np.asarray(result), arrays[key]
        if key.startswith("feature/"):
            result = result[:1, ..., :: meta["feature_channel_step"]]
        elif key == "logits":
            assert result.shape == (*arrays["x"].shape[:3], meta["classes"])
            result = result[:, :: meta["logits_step"], :: meta["logits_step"]]
        error = np.max(np.abs(result - expected)) / np.max(np.abs(expected))
        assert error <= LIMIT, f"{key}: {error:.2g}"
    shapes = {name: list(value.shape) for name, value in mmseg_state_dict(model).items()}
    assert shapes == meta["state_dict_shapes"]
