"""`train`: what a run leaves, and that interrupting it changes nothing."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.config import load_config
from psanet_tf.data.pipeline import evaluation_dataset
from psanet_tf.data.scenes import write_scenes
from psanet_tf.files import NoSpaceError
from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet
from psanet_tf.models.weights_files import weights_identity
from psanet_tf.training import callbacks, trainer
from psanet_tf.training.callbacks import Keeper
from psanet_tf.training.checkpoints import load_trained
from psanet_tf.training.interruption import SIGNALS, TrainingInterrupted
from psanet_tf.training.run_folder import RunFolder
from psanet_tf.training.schedule import Schedule
from psanet_tf.training.trainer import train

STEPS = 4  # of an epoch: 18 pictures in batches of 4
RECIPE = ("model.use_psa=false", "train.cpu_replicas=2", "train.save_every_steps=2", "train.keep_last=2")
QUICK = ("model.use_psa=false", "train.epochs=1")


@pytest.fixture(scope="module")
def uninterrupted(config_file, tmp_path_factory):
    """A run of three epochs on two replicas."""
    config = load_config(config_file, [*RECIPE, "train.tensorboard=true"])
    return train(config, tmp_path_factory.mktemp("runs") / "uninterrupted").run


def weights(file):
    return load_trained(file).model.get_weights()


def stored_position(run):
    with np.load(run.state_file) as stored:
        position = json.loads(str(stored["facts"]))["position"]
    return position["epoch"], position["step"]


def rows(run):
    """The metrics table without what depends on the time of day."""
    table = [json.loads(line) for line in run.json_lines_file.read_text().splitlines()]
    return [{key: row[key] for key in row if key not in ("seconds", "images_per_second")} for row in table]


def assert_same_run(run, other):
    for one, two in zip(weights(run.last_file), weights(other.last_file), strict=True):
        np.testing.assert_array_equal(one, two)
    # The mean values of an interrupted epoch are shared out over the replicas anew.
    for one, two in zip(rows(run), rows(other), strict=True):
        assert one == pytest.approx(two, rel=1e-6)


def test_run_folder(uninterrupted, config_file):
    run = uninterrupted
    assert sorted(file.name for file in run.path.iterdir()) == [
        ".lock",
        "best.keras",
        "checkpoints",
        "config.yaml",
        "data",
        "dataset.json",
        "environment.json",
        "last.keras",
        "metrics.csv",
        "metrics.jsonl",
        "schedule.json",
        "state.npz",
        "state.previous.npz",
        "tensorboard",
    ]
    assert sorted(file.name for file in run.checkpoint_folder.iterdir()) == ["epoch_00002.keras", "epoch_00003.keras"]
    assert load_config(run.config_file) == load_config(config_file, [*RECIPE, "train.tensorboard=true"])
    (start,) = json.loads(run.environment_file.read_text())
    assert start["packages"]["keras"] == keras.__version__
    assert len(start["devices"]) == 2

    table = rows(run)
    assert [(row["epoch"], row["step"]) for row in table] == [(1, STEPS), (2, 2 * STEPS), (3, 3 * STEPS)]
    assert table[-1]["loss"] < table[0]["loss"]
    assert table[0]["loss"] == pytest.approx(table[0]["main_loss"] + 0.4 * table[0]["aux_loss"], rel=1e-5)
    assert table[0]["learning_rate"] == pytest.approx(0.01 * (1 - STEPS / (3 * STEPS)) ** 0.9, rel=1e-5)
    # Validation and saving do not count as time of training, nor does the building of the graph.
    for line in run.json_lines_file.read_text().splitlines():
        row = json.loads(line)
        assert row["images_per_second"] > 4 * STEPS / row["seconds"]
    with open(run.csv_file, newline="") as file:
        assert [float(row["val_miou"]) for row in csv.DictReader(file)] == [row["val_miou"] for row in table]


def test_best_checkpoint_is_the_epoch_with_the_best_validation(uninterrupted):
    table = rows(uninterrupted)
    best = max(range(3), key=lambda index: table[index]["val_miou"])
    # The first epoch's checkpoint is not kept; later ones can be told from each other.
    assert best > 0
    kept = {epoch: uninterrupted.checkpoint_folder / f"epoch_{epoch:05d}.keras" for epoch in (2, 3)}
    equal = [
        epoch
        for epoch, file in kept.items()
        if all(
            np.array_equal(one, two) for one, two in zip(weights(uninterrupted.best_file), weights(file), strict=True)
        )
    ]
    assert equal == [best + 1]


def test_checkpoint_holds_weights_only_and_comes_back_with_its_facts(uninterrupted):
    trained = load_trained(uninterrupted.path)
    assert trained.path == uninterrupted.best_file
    assert trained.info.name == "scenes"
    assert trained.config.train.batch_size == 4
    assert load_trained(uninterrupted.checkpoint_folder / "epoch_00003.keras").info.name == "scenes"
    last = uninterrupted.last_file
    assert last.stat().st_size < 1.5 * 4 * trained.model.count_params() + 500_000


def test_tensorboard_has_curves_and_pictures(uninterrupted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(uninterrupted.tensorboard_folder), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    expected = {"loss/training", "loss/validation", "miou/training", "miou/validation", "learning_rate/training"}
    assert expected <= tags
    assert [event.step for event in events.Tensors("miou/validation")] == [4, 8, 12]
    pictures = events.Tensors("input, truth, prediction")[-1].tensor_proto.string_val
    assert (int(pictures[0]), int(pictures[1]), len(pictures) - 2) == (3 * 33, 33, 4)
    # They are those of the last weights, called on all of them at once.
    config, info = uninterrupted.read_config(), uninterrupted.read_info()
    images, _ = next(iter(evaluation_dataset(config, 4)))
    labels = np.argmax(load_trained(uninterrupted.last_file).model(images, training=False)["logits"], axis=-1)
    predicted = np.stack([tf.io.decode_png(picture)[:, 66:] for picture in pictures[2:]])
    assert np.mean(np.all(predicted == info.colors[labels], axis=-1)) > 0.999


def test_a_finished_run_is_left_alone(uninterrupted, capfd):
    before = uninterrupted.last_file.stat().st_mtime_ns
    config = load_config(uninterrupted.config_file)
    result = train(config, uninterrupted.path)
    assert result.position.epoch == 3
    assert "is finished, 3 of 3 epochs; --extend --epochs N makes it longer" in capfd.readouterr().err
    assert uninterrupted.last_file.stat().st_mtime_ns == before


def saved_step(state):
    """Step of the state in a file, or None if there is none just now."""
    try:
        with np.load(state) as stored:
            return json.loads(str(stored["facts"]))["position"]["step"]
    except FileNotFoundError:
        return None


def test_kill_9_and_the_same_command_again_give_the_same_weights(
    uninterrupted, config_file, tmp_path, monkeypatch, capfd
):
    command = [sys.executable, "-m", "psanet_tf", "train", "--config", str(config_file), "--run-dir", str(tmp_path)]
    for override in RECIPE:
        command += ["--set", override]
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    state = tmp_path / "state.npz"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 300
        while saved_step(state) != 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert saved_step(state) == 2, process.communicate()[1].decode()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    # It was killed in the middle of the first epoch, long before its validation was through.
    assert saved_step(state) == 2
    # As if in the middle of a save: the state's name is free, a half-written one lies there.
    state.rename(tmp_path / "state.previous.npz")
    (tmp_path / ".state.abcdefgh.npz").write_bytes(b"half")
    done = []
    original = Keeper.on_train_batch_end
    monkeypatch.setattr(
        Keeper, "on_train_batch_end", lambda self, batch, logs=None: (original(self, batch, logs), done.append(batch))
    )
    run = train(load_config(config_file, RECIPE), tmp_path).run
    assert done == [0, 1] + 2 * [0, 1, 2, 3]
    assert_same_run(uninterrupted, run)
    assert not (tmp_path / ".state.abcdefgh.npz").exists()
    said = capfd.readouterr().err
    assert "there is no state.npz; going on from the state saved before it" in said
    assert "going on after epoch 0 and step 2 of 4; the weights will be bit-equal to those of a run that was" in said
    _, start = json.loads(run.environment_file.read_text())
    assert start["replicas"] == 2 and "bit-equal" in start["continuation"][0]


def test_a_signal_saves_and_stops_and_the_same_command_again_gives_the_same_weights(
    uninterrupted, config_file, tmp_path, monkeypatch
):
    config = load_config(config_file, [*RECIPE, "train.save_every_steps=null"])
    run = RunFolder(tmp_path)

    def interrupt(method, number, place):
        """Sends the signal in the second epoch, at the n-th batch of its training or validation."""
        original = getattr(Keeper, method)

        def with_signal(self, batch, logs=None):
            if self.position.epoch == 1 and batch == place:
                os.kill(os.getpid(), number)
            original(self, batch, logs)

        monkeypatch.setattr(Keeper, method, with_signal)
        handlers = [signal.getsignal(number) for number in SIGNALS]
        with pytest.raises(TrainingInterrupted) as interrupted:
            train(config, tmp_path)
        monkeypatch.setattr(Keeper, method, original)
        assert [signal.getsignal(number) for number in SIGNALS] == handlers
        assert interrupted.value.signal == number
        return str(interrupted.value)

    message = interrupt("on_train_batch_end", signal.SIGTERM, 2)
    assert message.startswith("stopped by SIGTERM in epoch 2 of 3 after step 3 of 4, whose state is saved in ")
    assert message.endswith("the same command goes on from there")
    assert stored_position(run) == (1, 3)
    message = interrupt("on_test_batch_end", signal.SIGINT, 0)
    assert message.startswith("stopped by SIGINT in epoch 2 of 3 after step 4 of 4")
    assert stored_position(run) == (1, 4)
    assert_same_run(uninterrupted, train(config, tmp_path).run)


def test_state_is_saved_after_some_minutes(config, tmp_path, monkeypatch):
    positions = []
    monkeypatch.setattr(callbacks, "save_state", lambda *args, **kwargs: positions.append(args[2]))
    # A clock that goes on by a minute and a half between two steps.
    original = Keeper.on_train_batch_end

    def later(self, batch, logs=None):
        self._saved -= 90
        original(self, batch, logs)

    monkeypatch.setattr(Keeper, "on_train_batch_end", later)
    train(config(*QUICK, "train.save_every_minutes=3"), tmp_path)
    assert [(position.epoch, position.step) for position in positions] == [(0, 2), (0, 4), (1, 0)]


def test_a_failed_write_keeps_the_previous_checkpoint(uninterrupted, config, tmp_path, monkeypatch):
    original = PSANet.save
    saved = []

    def full_disk(self, path, *args, **kwargs):
        if saved:
            with open(path, "wb") as file:
                file.write(b"half a checkpoint")
            raise OSError(28, "No space left on device")
        saved.append(path)
        original(self, path, *args, **kwargs)

    monkeypatch.setattr(PSANet, "save", full_disk)
    with pytest.raises(NoSpaceError, match="no space left to write .*last.keras"):
        train(config(*QUICK, "train.epochs=2"), tmp_path)
    monkeypatch.undo()
    assert load_trained(tmp_path).model.num_classes == load_trained(uninterrupted.path).model.num_classes
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".last")]
    assert train(config(*QUICK, "train.epochs=2"), tmp_path).position.epoch == 2


def test_a_loss_that_is_not_finite_stops_the_run(config, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "_STEPS_BETWEEN_CHECKS", 3)
    message = (
        r"the loss became (nan|inf) in epoch 1, step 3 of 4 \(learning rate \d.*train.learning_rate.*train.clip_norm"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(config(*QUICK, "train.learning_rate=3e38"), tmp_path)
    assert not (tmp_path / "last.keras").exists()


def test_weights_that_are_not_finite_are_not_saved(config, tmp_path):
    # The first step's loss is finite, its update is not.
    options = ("train.learning_rate=3e38", "train.head_learning_rate_factor=1000", "train.save_every_steps=1")
    with pytest.raises(FloatingPointError, match=r"\w+/\w+ became infinite or NaN in epoch 1, step 1 of 4"):
        train(config(*QUICK, *options), tmp_path)
    # What was saved before the first step is still there.
    assert stored_position(RunFolder(tmp_path)) == (0, 0)


def test_wrong_folders_are_refused_before_training(uninterrupted, config, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"another configuration \(train.learning_rate was 0.01, is 0.02\)"):
        train(config(*RECIPE, "train.learning_rate=0.02"), uninterrupted.path)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"holds thesis.tex but no run"):
        train(config(), tmp_path)
    with pytest.raises(OSError, match="is a file"):
        train(config(), tmp_path / "thesis.tex")
    with pytest.raises(OSError, match="cannot be written"):
        train(config(), tmp_path / "thesis.tex" / "run")
    with RunFolder(tmp_path / "held").locked(), pytest.raises(OSError, match="another process is training"):
        train(config(), tmp_path / "held")
    free = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    with pytest.raises(OSError, match=r"checkpoints and states of this run need about [\d.]+ MB more, 1.0 kB are free"):
        train(config(*QUICK), tmp_path / "full")
    assert not (tmp_path / "full" / "config.yaml").exists()


def test_wrong_data_and_numbers_are_refused_before_training(config, tmp_path):
    with pytest.raises(ValueError, match=r"train.batch_size: 3 pictures cannot be shared equally by 2 replicas; 2 can"):
        train(config("train.batch_size=3", "train.cpu_replicas=2"), tmp_path / "a")
    with pytest.raises(ValueError, match=r"18 pictures, fewer than one batch of 20"):
        train(config("train.batch_size=20"), tmp_path / "b")
    with pytest.raises(ValueError, match=r"train.accumulation_steps: 13 steps per update, but the run has 12"):
        train(config("train.accumulation_steps=13"), tmp_path / "c")
    with pytest.raises(ValueError, match=r"train.class_weights: scenes has \d+ classes, got 2"):
        train(config("train.class_weights=[1, 2]"), tmp_path / "d")
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        train(config("train.init=nothing.pth"), tmp_path / "e")
    with pytest.raises(FileNotFoundError, match="no folder"):
        train(config("data.dataset=ade20k", "data.root=nowhere"), tmp_path / "f")


def test_missing_scenes_are_written_first(config, tmp_path, monkeypatch):
    written = []

    def write_few(root):
        written.append(root)
        write_scenes(root, train=1, validation=1)

    monkeypatch.setattr(trainer, "write_scenes", write_few)
    trainer.prepare_data(config(f"data.root={tmp_path / 'new'}"))
    trainer.prepare_data(config())
    assert written == [str(tmp_path / "new")]


@pytest.fixture
def copy(uninterrupted, tmp_path):
    """A copy of the finished run that a test may spoil."""
    shutil.copytree(uninterrupted.path, tmp_path / "copy")
    return RunFolder(tmp_path / "copy")


def test_neither_damaged_states_nor_changed_data_start_a_run_over(copy, dataset_root, tmp_path):
    config = load_config(copy.config_file)
    fewer = tmp_path / "fewer"
    shutil.copytree(dataset_root, fewer)
    for index in range(8, 18):
        (fewer / "images" / "training" / f"{index}.jpg").unlink()
        (fewer / "annotations" / "training" / f"{index}.png").unlink()
    before = {file: file.read_bytes() for file in copy.path.glob("*.*")}
    with pytest.raises(ValueError, match=r"split 'training' had 18 pictures, has 8.*--init .*last.keras takes over"):
        train(load_config(copy.config_file, [f"data.root={fewer}", "train.epochs=4"]), copy.path, extend=True)
    for name in ("state.npz", "state.previous.npz"):
        before[copy.path / name] = before[copy.path / name][:1000]
        (copy.path / name).write_bytes(before[copy.path / name])
    with pytest.raises(ValueError, match=r"state.npz is damaged .*state.previous.npz is damaged .*Nothing was changed"):
        train(config, copy.path)
    assert {file: file.read_bytes() for file in copy.path.glob("*.*")} == before


def test_a_finished_run_with_a_damaged_best_checkpoint(copy):
    shutil.rmtree(copy.checkpoint_folder)
    copy.best_file.write_bytes(copy.best_file.read_bytes()[:1000])
    with np.load(copy.state_file) as stored:
        best = json.loads(str(stored["facts"]))["position"]["best_weights"]
    config = load_config(copy.config_file)
    if best == weights_identity(copy.last_file):
        train(config, copy.path)
        assert weights_identity(copy.best_file) == best
    else:
        with pytest.raises(ValueError, match="no other checkpoint holds the best weights"):
            train(config, copy.path)


def test_a_finished_run_is_extended(copy, capfd):
    with pytest.raises(ValueError, match=r"a run of 3 epochs, train.epochs is 5; give --extend --epochs 5"):
        train(load_config(copy.config_file, ["train.epochs=5"]), copy.path)
    before = rows(copy)
    result = train(load_config(copy.config_file, ["train.epochs=5"]), copy.path, extend=True)
    assert result.position.epoch == 5
    table = rows(copy)
    assert table[:3] == before
    assert [(row["epoch"], row["step"]) for row in table[3:]] == [(4, 4 * STEPS), (5, 5 * STEPS)]
    # From here on the schedule is that of a run of five epochs.
    rates = [row["learning_rate"] for row in table]
    assert rates[3] == pytest.approx(0.01 * (1 - 16 / 20) ** 0.9, rel=1e-5)
    assert (rates[2], rates[4]) == (0, 0)
    rate = f"{0.01 * (1 - 12 / 20) ** 0.9:.3g}"
    expected = (
        f"the run is extended from 3 to 5 epochs: its learning rate goes on at {rate} instead of 0 and falls to 0"
    )
    assert expected in capfd.readouterr().err
    assert Schedule.load(copy.schedule_file) == Schedule(STEPS, 5, ((3, 5, 3, 0),))
    assert any(
        not np.array_equal(one, two)
        for one, two in zip(weights(copy.last_file), weights(copy.checkpoint_folder / "epoch_00004.keras"), strict=True)
    )
