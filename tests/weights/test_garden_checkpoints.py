"""Checkpoints of Model Garden's trainer, read without the Garden and under another Keras than wrote them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSANet
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.weights.checkpoints import checkpoint_file, load_trained
from psanet_tf.weights.conversion import convert_weights
from psanet_tf.weights.garden_checkpoints import NetworkRecord, garden_checkpoint
from psanet_tf.weights.initial_weights import load_initial_weights
from psanet_tf.weights.public_weights import public_state_dict

pytestmark = pytest.mark.extended

ARGUMENTS = {"blocks": (1, 1, 1, 1), "width": 4, "input_shape": (33, 25, 3)}

# What the Garden's trainer keeps in its checkpoints, by legacy Keras: one in "run", the best one in "run/best_ckpt".
PROGRAM = """
import sys

sys.path.insert(0, sys.argv[1])
import numpy as np
import tensorflow as tf
from psanet_tf import PSANet
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.keras_api import keras
from psanet_tf.weights.description import Description, describe
from psanet_tf.weights.garden_checkpoints import NetworkRecord
from psanet_tf.weights.initial_weights import load_initial_weights

info = dataset_info("scenes")
model = PSANet(info.num_classes, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 25, 3), mask_size=[9, 7])
describe(model, Description(info, EvaluateSection(base_size=161)))
model.network_record = NetworkRecord(model)
optimizer = keras.optimizers.legacy.SGD(0.1, momentum=0.9)
checkpoint = tf.train.Checkpoint(global_step=tf.Variable(3), model=model, optimizer=optimizer)
optimizer.apply_gradients([(tf.ones_like(variable), variable) for variable in model.trainable_variables])
rng = np.random.default_rng(1)
x = rng.normal(size=(2, 33, 25, 3)).astype("float32")
outputs = {"x": x}
for name, folder in (("best", "run/best_ckpt"), ("latest", "run")):
    model.set_weights([w + rng.uniform(0, 0.1, w.shape).astype(w.dtype) for w in model.get_weights()])
    tf.train.CheckpointManager(checkpoint, folder, max_to_keep=1).save()
    outputs[name] = model(x)["logits"]
lines = load_initial_weights(model, "given.keras")
assert lines == ["initial weights from given.keras: 136 of 136 tensors taken"], lines
outputs["given"] = model(x)["logits"]
np.savez("outputs.npz", **outputs)
"""


@pytest.fixture(scope="module")
def garden_run(tmp_path_factory):
    """(folder of the trainer, what its networks give, a network whose file it began with)."""
    pytest.importorskip("tf_keras", reason="legacy Keras (tf_keras) is not installed")
    folder = tmp_path_factory.mktemp("garden")
    given = PSANet(dataset_info("scenes").num_classes, **ARGUMENTS, mask_size=(9, 7))
    given.save(folder / "given.keras")
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[2])]
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert result.returncode == 0, result.stderr
    return folder / "run", np.load(folder / "outputs.npz"), given


def test_a_folder_stands_for_its_best_checkpoint_and_others_go_by_their_names(garden_run):
    run, _, _ = garden_run
    best, latest = run / "best_ckpt" / "ckpt-1.index", run / "ckpt-2.index"
    for path, index in ((run, best), (run / "best_ckpt", best), (run / "ckpt-2", latest), (latest, latest)):
        assert garden_checkpoint(path) == checkpoint_file(path) == index
    assert garden_checkpoint(run / "best_ckpt" / "checkpoint") is None
    assert garden_checkpoint(run / "nothing") is None


@pytest.mark.parametrize(("name", "path"), [("best", "."), ("latest", "ckpt-2")])
def test_a_checkpoint_becomes_a_keras_file(garden_run, tmp_path, name, path):
    run, outputs, _ = garden_run
    convert_weights(run / path, tmp_path / "network.keras")
    trained = load_trained(tmp_path / "network.keras")
    logits = trained.model(outputs["x"])["logits"]
    np.testing.assert_allclose(logits, outputs[name], rtol=1e-4, atol=1e-4 * np.abs(outputs[name]).max())
    assert np.abs(outputs["best"] - outputs["latest"]).max() > 1e-2  # of which it could be the other one
    assert trained.info.name == "scenes"
    assert trained.evaluate == EvaluateSection(base_size=161)
    assert trained.model.get_config()["mask_size"] == (9, 7)


def test_legacy_keras_begins_with_a_file_of_this_one(garden_run):
    _, outputs, given = garden_run
    logits = given(outputs["x"])["logits"]
    np.testing.assert_allclose(outputs["given"], logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())


def test_a_run_begins_with_a_checkpoint(garden_run):
    run, _, _ = garden_run
    expected = public_state_dict(load_trained(run).model)
    model = PSANet(3, **ARGUMENTS, mask_size=(9, 7))
    lines = load_initial_weights(model, run)
    assert any("classes there, 3 here" in line for line in lines)
    state = public_state_dict(model)
    for name in ("layer0.0.weight", "layer4.0.bn2.running_var", "psa.attention_p.3.weight", "cls.0.weight"):
        np.testing.assert_array_equal(state[name], expected[name])


def test_checkpoints_of_something_else_are_refused(tmp_path):
    tf.train.Checkpoint(step=tf.Variable(1)).write(str(tmp_path / "other"))
    with pytest.raises(ValueError, match="other is no checkpoint of a PSANet that the Garden has trained"):
        load_trained(tmp_path / "other")
    (tmp_path / "damaged.index").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="damaged cannot be read as a checkpoint"):
        load_trained(tmp_path / "damaged")
    module = tf.Module()
    module.network_record = NetworkRecord(PSANet(3, **ARGUMENTS, use_psa=False))
    module.weight = tf.Variable(1.0, name="psa/proj_conv/kernel")
    tf.train.Checkpoint(model=module).write(str(tmp_path / "fewer"))
    with pytest.raises(ValueError, match="fewer holds other weights than its network has: aux_bn/beta, "):
        load_trained(tmp_path / "fewer")


def test_the_record_of_a_restored_checkpoint_does_not_count():
    model = PSANet(3, **ARGUMENTS, use_psa=False)
    record = NetworkRecord(model)
    before = record.serialize()
    record.deserialize("{}")
    assert record.serialize() == before
