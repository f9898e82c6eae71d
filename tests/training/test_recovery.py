"""Damage to a run's files, and a process killed at any moment: what can be had again is, the rest is said."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSANet
from psanet_tf.data.catalog import dataset_info
from psanet_tf.files import NoSpaceError
from psanet_tf.keras_api import keras
from psanet_tf.training.checkpoints import plain_copy, save_checkpoint
from psanet_tf.training.distributed_optimizer import DistributedOptimizer
from psanet_tf.training.optimizers import SGD
from psanet_tf.training.recovery import recover_checkpoints, recover_state
from psanet_tf.training.run_folder import TrainingFolder
from psanet_tf.training.state import Position, previous_state, save_state
from psanet_tf.training.tensorboard import TensorBoard
from psanet_tf.weights.checkpoints import load_trained
from psanet_tf.weights.files import weights_identity


@pytest.fixture(scope="module")
def model():
    model = PSANet(3, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 33, 3), use_psa=False)
    model.compile(DistributedOptimizer(SGD()))
    model.optimizer.build(model.trainable_variables)
    return model


def fill(model, value):
    for variable in model.variables:
        variable.assign(np.full(variable.shape, value, np.float32))


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory):
    """Two epochs: the state of epoch 2 and the one of epoch 1 before it, the best of epoch 1."""
    run = TrainingFolder(tmp_path_factory.mktemp("trained"))
    plain = plain_copy(model)
    fill(model, 1)
    plain.set_weights(model.get_weights())
    save_checkpoint(plain, run.last_file)
    shutil.copy(run.last_file, run.best_file)
    identity = weights_identity(run.last_file)
    save_state(run.state_file, model, Position(1, 0, 0.5, 1, identity))
    fill(model, 2)
    plain.set_weights(model.get_weights())
    save_checkpoint(plain, run.last_file)
    save_state(run.state_file, model, Position(2, 0, 0.5, 1, identity))
    return run


@pytest.fixture
def run(trained, model, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    fill(model, 0)
    return TrainingFolder(tmp_path / "run")


def damage(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[:1000])


def empty(file):
    file.write_bytes(b"")


def contents(run):
    return {file.name: file.read_bytes() for file in run.path.iterdir()}


def test_a_state_is_restored(run, model, capsys):
    position, metrics = recover_state(run, model)
    assert (position.epoch, position.best_epoch, metrics) == (2, 1, [])
    assert float(model.variables[0].numpy().flat[0]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("harm", [damage, cut, empty, lambda file: file.unlink()], ids=["bit", "cut", "empty", "gone"])
def test_the_state_before_takes_the_place_of_a_damaged_one_and_that_is_said(run, model, capsys, harm):
    harm(run.state_file)
    assert recover_state(run, model)[0].epoch == 1
    assert float(model.variables[0].numpy().flat[0]) == 1
    said = capsys.readouterr().err
    assert "state.npz" in said and f"going on from the state saved before it, {previous_state(run.state_file)}" in said


def test_without_a_state_nothing_starts_over_and_nothing_changes(run, model):
    for harm in (cut, lambda file: file.unlink()):
        for file in (run.state_file, previous_state(run.state_file)):
            harm(file)
        before = contents(run)
        with pytest.raises(ValueError, match=rf"Nothing was changed.*--init {run.last_file} --run-dir NEW_FOLDER"):
            recover_state(run, model)
        assert contents(run) == before
        assert float(model.variables[0].numpy().flat[0]) == 0
    cut(run.last_file)
    with pytest.raises(ValueError, match=rf"--init {run.best_file} --run-dir"):
        recover_state(run, model)
    cut(run.best_file)
    with pytest.raises(ValueError, match="None of its checkpoints is whole"):
        recover_state(run, model)
    shutil.rmtree(run.path)
    assert recover_state(run, model) is None


def test_a_state_of_another_network_is_no_state(run):
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    other.compile(SGD())
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(ValueError, match=r"state.npz holds the \d+ variables of another model or optimizer"):
        recover_state(run, other)


def test_a_last_checkpoint_is_written_again_from_the_state(run, model, capsys):
    position, _ = recover_state(run, model)
    expected = weights_identity(run.last_file)
    for harm in (damage, lambda file: file.unlink()):
        harm(run.last_file)
        assert recover_checkpoints(run, model, position, finished=True) == position
        assert "last.keras" in capsys.readouterr().err
        assert weights_identity(run.last_file) == expected
    assert load_trained(run.last_file).model.count_params() == model.count_params()
    recover_checkpoints(run, model, position, finished=True)
    assert capsys.readouterr().err == ""


def test_a_best_checkpoint_is_copied_from_one_of_the_same_weights(run, model, capsys):
    """Damaged, or not yet copied when the process was killed."""
    position, _ = recover_state(run, model)
    kept = run.checkpoint_folder / "epoch_00001.keras"
    kept.parent.mkdir()
    kept.write_bytes(run.best_file.read_bytes())
    for harm in (damage, lambda file: shutil.copy(run.last_file, file)):
        harm(run.best_file)
        assert recover_checkpoints(run, model, position, finished=True) == position
        assert "copied again from epoch_00001.keras" in capsys.readouterr().err
        assert weights_identity(run.best_file) == position.best_weights


def test_best_weights_that_are_lost_are_an_error_of_a_finished_run(run, model, capsys):
    position, _ = recover_state(run, model)
    damage(run.best_file)
    before = contents(run)
    with pytest.raises(ValueError, match=rf"best.keras is damaged.*those of epoch 1. Use --weights {run.last_file}"):
        recover_checkpoints(run, model, position, finished=True)
    assert contents(run) == before
    going_on = recover_checkpoints(run, model, position, finished=False)
    assert (going_on.epoch, going_on.best_miou, going_on.best_epoch, going_on.best_weights) == (2, None, None, None)
    assert "the next validation makes a new best.keras" in capsys.readouterr().err
    # Within an epoch, and before the first, there is no last checkpoint to be had from the state.
    run.last_file.unlink()
    recover_checkpoints(run, model, Position(1, 2), finished=False)
    recover_checkpoints(run, model, Position(), finished=False)
    assert not run.last_file.exists()


def test_space_for_checkpoints_is_looked_at_before(run, monkeypatch):
    there = sum(file.stat().st_size for file in run.trained_files())
    needed = 5 * 10_000_000 + 3 * 20_000_000 - there
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": needed}))
    run.check_space(10_000_000, 20_000_000, keep_last=2)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": needed - 1}))
    with pytest.raises(OSError, match=r"need about 1\d\d.\d MB more, 1\d\d.\d MB are free at .*run; make room"):
        run.check_space(10_000_000, 20_000_000, keep_last=2)


def test_no_room_for_curves_is_said_which_tensorflow_does_not(model, tmp_path, monkeypatch):
    label = np.zeros((1, 33, 33), np.uint8)
    images = tf.data.Dataset.from_tensors((np.zeros((1, 33, 33, 3), np.float32), {"logits": label}))
    checkpoints = SimpleNamespace(records=SimpleNamespace(rows=[{"epoch": 1, "step": 4, "loss": 0.5}]))
    curves = TensorBoard(tmp_path / "tensorboard", checkpoints, dataset_info("scenes"), images, zoom_factor=8)
    curves.set_model(model)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 100_000}))
    with pytest.raises(NoSpaceError, match=r"no space left to write .*tensorboard/events: needs about 139.2 kB, 100.0"):
        curves.on_epoch_end(0)
