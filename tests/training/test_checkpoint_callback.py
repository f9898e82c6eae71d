"""`CheckpointCallback`, called as `fit` calls it: when it saves, and what happens when saving or the loss fails."""

import signal
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSANet
from psanet_tf.config import TrainSection
from psanet_tf.files import NoSpaceError
from psanet_tf.keras_api import keras
from psanet_tf.training import callbacks
from psanet_tf.training.agreement import Agreement
from psanet_tf.training.callbacks import CheckpointCallback
from psanet_tf.training.distributed_optimizer import DistributedOptimizer
from psanet_tf.training.interruption import StopSignals, TrainingInterrupted
from psanet_tf.training.optimizers import SGD
from psanet_tf.training.recovery import recover_state
from psanet_tf.training.run_folder import TrainingFolder
from psanet_tf.training.state import Position, save_state
from psanet_tf.weights.checkpoints import load_trained
from psanet_tf.weights.files import weights_identity

STEPS = 4


@pytest.fixture(scope="module")
def compiled():
    model = PSANet(3, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 33, 3), use_psa=False)
    model.compile(DistributedOptimizer(SGD()))
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def model(compiled):
    values = [variable.numpy() for variable in compiled.variables]
    yield compiled
    for variable, value in zip(compiled.variables, values, strict=True):
        variable.assign(value)


@pytest.fixture
def two_classes():
    """Another model, which can be trained at once, at a rate that is far too high."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    model.compile(
        DistributedOptimizer(SGD(3e38)), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    return model


@pytest.fixture
def signals():
    return StopSignals()


@pytest.fixture
def keeper(model, signals, tmp_path):
    """`keeper(**options of the train section)` -> CheckpointCallback of a new run of two epochs of four steps."""
    run = TrainingFolder(tmp_path / "run")
    run.path.mkdir()
    save_state(run.state_file, model, Position())

    def make(**options):
        section = TrainSection(epochs=2, **options)
        strategy = tf.distribute.OneDeviceStrategy("CPU:0")
        keeper = CheckpointCallback(run, section, STEPS, Position(), [], Agreement(strategy), signals)
        keeper.set_model(model)
        return keeper

    return make


def epoch(keeper, number, loss=1.0, val_miou=0.5, steps=STEPS):
    """What `fit` calls in an epoch, validation included."""
    keeper.on_epoch_begin(number)
    for batch in range(steps):
        keeper.on_train_batch_end(batch, {"loss": loss})
    keeper.on_test_begin()
    keeper.on_test_batch_end(0)
    keeper.on_epoch_end(number, {"loss": loss, "val_logits_miou": val_miou})


def stored_position(keeper, model):
    return recover_state(keeper.run, model)[0]


def test_state_is_saved_after_some_minutes(keeper, monkeypatch):
    positions = []
    original = callbacks.save_state
    monkeypatch.setattr(callbacks, "save_state", lambda *args, **kwargs: (positions.append(args[2]), original(*args)))
    # A clock that goes on by a minute and a half between two steps.
    seconds = 0.0

    def advance(batch, logs=None, call=CheckpointCallback.on_train_batch_end):
        nonlocal seconds
        seconds += 90
        call(keeper, batch, logs)

    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: seconds))
    keeper = keeper(save_every_minutes=3)
    monkeypatch.setattr(keeper, "on_train_batch_end", advance)
    epoch(keeper, 0)
    assert [(position.epoch, position.step) for position in positions] == [(0, 2), (0, 4), (1, 0)]


def test_a_signal_saves_and_stops(keeper, model, signals):
    keeper = keeper(save_every_steps=2)
    keeper.on_epoch_begin(0)
    with signals.caught(), signals.deferred():
        for batch in range(2):
            keeper.on_train_batch_end(batch, {"loss": 1.0})
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(TrainingInterrupted) as stopped:
            keeper.on_train_batch_end(2, {"loss": 1.0})
    assert stopped.value.signal == signal.SIGTERM
    assert str(stopped.value) == (
        f"stopped by SIGTERM in epoch 1 of 2 after step 3 of 4, whose state is saved in {keeper.run.path}; "
        "the same command goes on from there"
    )
    assert stored_position(keeper, model) == Position(0, 3)


def test_a_failed_write_keeps_the_previous_checkpoint(keeper, model, monkeypatch):
    keeper = keeper()
    epoch(keeper, 0)
    identity = weights_identity(keeper.run.last_file)

    def full_disk(self, path, *args, **kwargs):
        with open(path, "wb") as file:
            file.write(b"half a checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PSANet, "save", full_disk)
    model.variables[0].assign_add(tf.ones_like(model.variables[0]))
    with pytest.raises(NoSpaceError, match="no space left to write .*last.keras"):
        epoch(keeper, 1)
    monkeypatch.undo()
    run = keeper.run
    assert load_trained(run.path).model.num_classes == 3
    assert weights_identity(run.last_file) == weights_identity(run.best_file) == identity
    assert not [file.name for file in run.path.iterdir() if file.name.startswith(".last")]
    # All steps are saved: the run goes on with the validation of the second epoch.
    assert stored_position(keeper, model) == Position(1, STEPS, 0.5, 1, identity)


def test_a_loss_that_is_not_finite_stops_the_run(keeper, model, monkeypatch):
    monkeypatch.setattr(callbacks, "_STEPS_BETWEEN_CHECKS", 3)
    keeper = keeper()
    message = r"the loss became nan in epoch 1, step 3 of 4 \(learning rate 0.01.*train.learning_rate.*train.clip_norm"
    with pytest.raises(FloatingPointError, match=message):
        epoch(keeper, 0, loss=np.nan)
    # The last steps of an epoch, and those before a save, are looked at whatever their number is.
    monkeypatch.setattr(callbacks, "_STEPS_BETWEEN_CHECKS", 50)
    with pytest.raises(FloatingPointError, match=r"the loss became inf in epoch 1, step 4 of 4"):
        epoch(keeper, 0, loss=np.inf)
    assert not keeper.run.last_file.exists()
    assert stored_position(keeper, model) == Position()


def test_a_learning_rate_that_is_too_high_stops_fit(keeper, two_classes, monkeypatch):
    monkeypatch.setattr(callbacks, "_STEPS_BETWEEN_CHECKS", 3)
    keeper = keeper()
    images = tf.random.stateless_normal((STEPS * 2, 8), [0, 0])
    labels = tf.random.stateless_uniform((STEPS * 2,), [0, 1], maxval=2, dtype=tf.int32)
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) in epoch 1, step 3 of 4"):
        two_classes.fit(images, labels, batch_size=2, epochs=2, callbacks=[keeper], verbose=0)
    assert not keeper.run.last_file.exists()


def test_weights_that_are_not_finite_are_not_saved(keeper, model):
    """The loss of a step is finite, its update is not."""
    keeper = keeper(save_every_steps=1)
    kernel = model.trainable_variables[0]
    kernel.assign(np.full(kernel.shape, np.inf))
    with pytest.raises(FloatingPointError, match=r"\w+/\w+ became infinite or NaN in epoch 1, step 1 of 4"):
        epoch(keeper, 0)
    assert not keeper.run.last_file.exists()
    # What was saved before the first step is still there.
    assert stored_position(keeper, model) == Position()
    assert all(np.isfinite(variable).all() for variable in model.variables)
