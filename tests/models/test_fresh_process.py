"""Files read back in a process that has done nothing but import the package."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from psanet_tf import PSALayer, PSANet
from psanet_tf.keras_api import keras

PROGRAM = """
import sys

sys.path.insert(0, sys.argv[1])
import numpy as np
import psanet_tf
from psanet_tf.keras_api import keras

x = np.load("x.npy")
network = keras.saving.load_model("network.keras", compile=False)
segmenter = keras.saving.load_model("segmenter.keras", compile=False)
again = psanet_tf.PSANet(5, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 25, 3))
again.load_weights("network.weights.h5")
np.savez(
    "outputs.npz",
    network=network(x)["logits"],
    trained=len(network.trainable_weights),
    segmenter=segmenter(x),
    again=again(x)["logits"],
)
"""


def test_files_are_read_by_a_program_of_any_name(tmp_path):
    network = PSANet(5, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 25, 3))
    network.get_layer("psa").proj_bn.trainable = False
    segmenter = keras.Sequential(
        [keras.Input([33, 25, 3]), keras.layers.Conv2D(6, 3, strides=4), PSALayer(mid_channels=4)]
    )
    rng = np.random.default_rng(1)
    for model in (network, segmenter):
        model.set_weights([w + rng.uniform(0, 0.1, w.shape).astype(w.dtype) for w in model.get_weights()])
    network.save(tmp_path / "network.keras")
    network.save_weights(tmp_path / "network.weights.h5")
    segmenter.save(tmp_path / "segmenter.keras")
    x = rng.normal(size=(2, 33, 25, 3)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    # The name of this project's own command, which must make no difference.
    (tmp_path / "psanet").write_text(PROGRAM)
    command = [sys.executable, "psanet", str(Path(__file__).parents[2])]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    outputs = np.load(tmp_path / "outputs.npz")
    np.testing.assert_allclose(outputs["network"], network(x)["logits"], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(outputs["again"], outputs["network"])
    np.testing.assert_allclose(outputs["segmenter"], segmenter(x), rtol=1e-6, atol=1e-6)
    assert outputs["trained"] == len(network.trainable_weights)
