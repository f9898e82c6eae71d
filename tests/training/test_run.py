"""`train`: what a run leaves, that interrupting it changes nothing, and that it can be made longer."""

import csv
import json
import math
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf.config import load_config
from psanet_tf.data.pipeline import evaluation_dataset
from psanet_tf.keras_api import keras
from psanet_tf.training import train
from psanet_tf.training.callbacks import CheckpointCallback
from psanet_tf.training.interruption import SIGNALS, TrainingInterrupted
from psanet_tf.training.run_folder import TrainingFolder
from psanet_tf.training.schedule import Schedule
from psanet_tf.weights.checkpoints import load_trained
from psanet_tf.weights.files import weights_identity

STEPS = 4  # of an epoch: 18 images in batches of 4
# Crops that are not of the form 8n + 1; two replicas; all that is random, and all that goes on with a run.
RECIPE = (
    "model.use_psa=false",
    "data.crop_size=[40, 48]",
    "data.augmentation.cat_max_ratio=0.6",
    "data.augmentation.color_jitter={brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.1}",
    "train.loss={cross_entropy: 1, dice: 0.5}",
    "train.class_weights=median_frequency",
    "train.schedule=cosine",
    "train.learning_rate_multipliers={backbone/layer4_: 0.5}",
    "train.early_stopping={monitor: val_loss, patience: 3}",
    "train.log_every=3",
    "train.cpu_replicas=2",
    "train.save_every_steps=2",
    "train.keep_last=2",
)


@pytest.fixture(scope="module")
def uninterrupted(config_file, tmp_path_factory):
    """A run of three epochs."""
    config = load_config(config_file, [*RECIPE, "train.tensorboard=true"])
    return train(config, tmp_path_factory.mktemp("runs") / "uninterrupted").run


def psanet(*arguments):
    """What the command prints."""
    _register()
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def weights(file):
    return load_trained(file).model.get_weights()


def stored_facts(run):
    """What the saved state says besides the values of variables; None if there is none just now."""
    try:
        with np.load(run.state_file) as stored:
            return json.loads(str(stored["facts"]))["position"]
    except FileNotFoundError:
        return None


def stored_position(run):
    """(whole epochs, steps) of the saved state; None if there is none just now."""
    facts = stored_facts(run)
    return facts and (facts["epoch"], facts["step"])


def cosine(update, updates):
    return 0.01 * (1 + math.cos(math.pi * update / updates)) / 2


def rows(run):
    """The metrics table without what depends on the time of day."""
    table = [json.loads(line) for line in run.json_lines_file.read_text().splitlines()]
    return [{key: row[key] for key in row if key not in ("seconds", "images_per_second")} for row in table]


def assert_same_run(run, other):
    for one, two in zip(weights(run.last_file), weights(other.last_file), strict=True):
        np.testing.assert_array_equal(one, two)
    # What early stopping knows, of the same numbers.
    one, two = (stored_facts(each) for each in (run, other))
    assert (one["monitored"], one["waited"]) == (two["monitored"], two["waited"]) == ("val_loss", one["waited"])
    assert one["monitored_best"] == pytest.approx(two["monitored_best"], rel=1e-6)
    # The mean values of an interrupted epoch are shared out over the replicas anew.
    for one, two in zip(rows(run), rows(other), strict=True):
        assert one == pytest.approx(two, rel=1e-6)


def test_run_folder(uninterrupted, config_file):
    run = uninterrupted
    assert sorted(file.name for file in run.path.iterdir()) == [
        ".lock",
        "best.keras",
        "checkpoints",
        "class_weights.json",
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
        "train.log",
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
    assert table[0]["learning_rate"] == pytest.approx(cosine(STEPS, 3 * STEPS), rel=1e-5)
    # Validation and saving do not count as time of training, nor does the building of the graph.
    first = json.loads(run.json_lines_file.read_text().splitlines()[0])
    assert first["images_per_second"] > 4 * STEPS / first["seconds"]
    with open(run.csv_file, newline="") as file:
        assert [float(row["val_miou"]) for row in csv.DictReader(file)] == [row["val_miou"] for row in table]


def test_best_checkpoint_is_the_epoch_with_the_best_validation(uninterrupted):
    table = rows(uninterrupted)
    best = max(range(3), key=lambda index: table[index]["val_miou"])
    # The first epoch's checkpoint is not kept; later ones can be told from each other.
    assert best > 0
    kept = {epoch: uninterrupted.checkpoint_folder / f"epoch_{epoch:05d}.keras" for epoch in (2, 3)}
    identity = weights_identity(uninterrupted.best_file)
    equal = [epoch for epoch, file in kept.items() if weights_identity(file) == identity]
    assert equal == [best + 1]


def test_checkpoint_holds_weights_only_and_comes_back_with_its_facts(uninterrupted):
    trained = load_trained(uninterrupted.path)
    assert trained.path == uninterrupted.best_file
    assert trained.info.name == "scenes"
    assert trained.config.train.batch_size == 4
    assert load_trained(uninterrupted.checkpoint_folder / "epoch_00003.keras").info.name == "scenes"
    last = uninterrupted.last_file
    assert last.stat().st_size < 1.5 * 4 * trained.model.count_params() + 500_000


def test_tensorboard_has_curves_and_images(uninterrupted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(uninterrupted.tensorboard_folder), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    expected = {"loss/training", "loss/validation", "miou/training", "miou/validation", "learning_rate/training"}
    assert expected <= tags
    assert [event.step for event in events.Tensors("miou/validation")] == [4, 8, 12]
    drawn = events.Tensors("input, truth, prediction")[-1].tensor_proto.string_val
    assert (int(drawn[0]), int(drawn[1]), len(drawn) - 2) == (3 * 48, 40, 4)
    # They are those of the last weights, called on all of them at once.
    config, info = uninterrupted.read_config(), uninterrupted.read_info()
    images, _ = next(iter(evaluation_dataset(config, 4)))
    labels = np.argmax(load_trained(uninterrupted.last_file).model(images, training=False)["logits"], axis=-1)
    predicted = np.stack([tf.io.decode_png(image)[:, 96:] for image in drawn[2:]])
    assert np.mean(np.all(predicted == info.colors[labels], axis=-1)) > 0.999


def test_a_line_every_so_many_steps(uninterrupted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = [line.split(" ", 1)[1] for line in uninterrupted.log_file.read_text().splitlines()]
    pattern = (
        r"step (\d+)/12, \d/4 of epoch \d  loss (\d\.\d{4})  learning rates? [\d.e, -]+  "
        r"gradient norm ([\d.e+-]+)  [\d.]+ images/s  about [\w ]+ left  [\d.]+ % of the peak"
    )
    steps = [match for match in (re.fullmatch(pattern, line) for line in lines) if match]
    assert [int(match[1]) for match in steps] == [3, 6, 9, 12], lines
    assert len([line for line in lines if line.startswith("peak of the machine: ")]) == 1
    assert len([line for line in lines if re.match(r"epoch \d/3  loss", line)]) == 3
    assert all(float(match[3]) > 0 for match in steps)
    # The four lines cover all steps once: so do the three epochs' means.
    means = [row["loss"] for row in rows(uninterrupted)]
    assert np.mean([float(match[2]) for match in steps]) == pytest.approx(np.mean(means), abs=1e-4)
    events = EventAccumulator(str(uninterrupted.tensorboard_folder), size_guidance={"tensors": 0})
    events.Reload()
    names = ("loss", "gradient_norm", "learning_rate", "images_per_second", "share_of_peak")
    for name in names:
        assert [event.step for event in events.Tensors(f"steps/{name}")] == [3, 6, 9, 12]


def test_a_finished_run_is_left_alone(uninterrupted, capfd):
    before = uninterrupted.last_file.stat().st_mtime_ns
    run = uninterrupted.path
    printed = psanet("train", "--run-dir", run)
    assert "is finished, 3 of 3 epochs; --extend --epochs N makes it longer" in capfd.readouterr().err + printed
    assert uninterrupted.last_file.stat().st_mtime_ns == before
    # The last lines say where things are and what to do next.
    for expected in (
        f"checkpoints: {run / 'best.keras'}",
        f"{run / 'metrics.csv'}",
        f"curves:      tensorboard --logdir {run / 'tensorboard'}",
        f"psanet evaluate --weights {run}",
    ):
        assert expected in printed
    printed = psanet("train", "--run-dir", run, "--set", "train.tensorboard=false")
    assert "best validation mIoU" in printed and "tensorboard" not in printed


def killed_at_step_2(start_psanet, config_file, run, log):
    """Trains in a process of its own until that step is saved, and kills the process."""
    command = ["train", "--config", config_file, "--run-dir", run.path]
    for override in RECIPE:
        command += ["--set", override]
    process = start_psanet(command, log)
    try:
        deadline = time.monotonic() + 300
        while stored_position(run) != (0, 2) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stored_position(run) == (0, 2), log.read_text()
    finally:
        process.kill()
        process.wait(60)
    # It was killed in the middle of the first epoch, long before its validation was through.
    assert stored_position(run) == (0, 2)


def test_kill_9_and_ctrl_c_and_the_same_command_again_give_the_same_weights(
    uninterrupted, start_psanet, config_file, tmp_path, monkeypatch, capfd
):
    config = load_config(config_file, RECIPE)
    run = TrainingFolder(tmp_path / "run")
    killed_at_step_2(start_psanet, config_file, run, tmp_path / "log")
    # As if in the middle of a save: the state's name is free, a half-written one lies there.
    run.state_file.rename(run.path / "state.previous.npz")
    (run.path / ".state.abcdefgh.npz").write_bytes(b"half")

    done = []
    after_step, after_validation_batch = CheckpointCallback.on_train_batch_end, CheckpointCallback.on_test_batch_end

    def counted(self, batch, logs=None):
        after_step(self, batch, logs)
        done.append(batch)

    def interrupted(self, batch, logs=None):
        if self.position.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)
        after_validation_batch(self, batch, logs)

    monkeypatch.setattr(CheckpointCallback, "on_train_batch_end", counted)
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted) as stopped:
        patch.setattr(CheckpointCallback, "on_test_batch_end", interrupted)
        train(config, run.path)
    assert done == [0, 1, *range(STEPS), *range(STEPS)]
    assert not (run.path / ".state.abcdefgh.npz").exists()
    said = capfd.readouterr().err
    assert "there is no state.npz; going on from the state saved before it" in said
    assert "going on after epoch 0 and step 2 of 4; the weights will be bit-equal to those of a run that was" in said
    _, start = json.loads(run.environment_file.read_text())
    assert start["replicas"] == 2 and "bit-equal" in start["continuation"][0]
    # In the validation of the last epoch.
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert stopped.value.signal == signal.SIGINT
    assert str(stopped.value).startswith(
        "stopped by SIGINT in epoch 3 of 3 after step 4 of 4, whose state is saved in "
    )
    assert str(stopped.value).endswith("the same command goes on from there")
    assert stored_position(run) == (2, 4)
    assert_same_run(uninterrupted, train(config, run.path).run)
    assert len(done) == 2 + 2 * STEPS


@pytest.fixture
def copy(uninterrupted, tmp_path):
    """A copy of the finished run that a test may spoil."""
    shutil.copytree(uninterrupted.path, tmp_path / "copy")
    return TrainingFolder(tmp_path / "copy")


def test_neither_damaged_states_nor_changed_data_start_a_run_over(copy, dataset_root, tmp_path):
    config = load_config(copy.config_file)
    fewer = tmp_path / "fewer"
    shutil.copytree(dataset_root, fewer)
    for index in range(8, 18):
        (fewer / "images" / "training" / f"{index}.jpg").unlink()
        (fewer / "annotations" / "training" / f"{index}.png").unlink()
    before = {file: file.read_bytes() for file in copy.path.glob("*.*")}
    with pytest.raises(ValueError, match=r"split 'training' had 18 images, has 8.*--init .*last.keras takes over"):
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


class Watching(keras.callbacks.Callback):
    """Notes what it is told of; asks for the end after a step of an epoch."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.told, self.stop_at = [], stop_at

    def on_train_begin(self, logs=None):
        self.told.append("begin")

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.stop_at:
            self.model.stop_training = True

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.told.append((epoch, "val_logits_miou" in logs))

    def on_train_end(self, logs=None):
        self.told.append("end")


def test_a_finished_run_is_extended_and_ended_by_callbacks_and_by_early_stopping(copy, capfd):
    with pytest.raises(ValueError, match=r"a run of 3 epochs, train.epochs is 6; give --extend --epochs 6"):
        psanet("train", "--run-dir", copy.path, "--epochs", 6)
    config = load_config(copy.config_file, ["train.epochs=6", "train.cpu_replicas=1", "train.tensorboard=false"])
    with pytest.raises(ValueError, match="callbacks must be keras.callbacks.Callback objects, got 'wandb'"):
        train(config, copy.path, extend=True, callbacks=["wandb"])
    before = rows(copy)
    watching = Watching(stop_at=(3, 1))
    position = train(config, copy.path, extend=True, callbacks=[watching]).position
    # From here on the schedule is that of a run of six epochs.
    said = capfd.readouterr().err
    rate = f"{cosine(12, 24):.3g}"
    assert (
        f"the run is extended from 3 to 6 epochs: its learning rate goes on at {rate} instead of 0 and falls to 0"
        in said
    )
    assert Schedule.load(copy.schedule_file) == Schedule(STEPS, 6, ((3, 6, 3, 0),))
    # Stopped within an epoch it is as if a signal had come.
    assert "ended by a callback in epoch 4 of 6 after step 2 of 4; the same command goes on from there" in said
    assert (position.epoch, position.step) == stored_position(copy) == (3, 2)
    assert rows(copy) == before
    assert watching.told == ["begin", "end"]

    # No loss is better by so much: two more are waited for. The rest of epoch 4 is a `fit` of its own.
    patience = position.waited + 2
    overrides = [f"train.early_stopping={{monitor: val_loss, patience: {patience}, min_delta: 100}}"]
    config = load_config(copy.config_file, overrides)
    watching = Watching()
    position = train(config, copy.path, callbacks=[watching]).position
    assert watching.told == ["begin", (3, True), (4, True), "end"]
    assert (position.epoch, position.step, position.waited) == (5, 0, patience)
    table = rows(copy)
    assert table[:3] == before
    assert [(row["epoch"], row["step"]) for row in table[3:]] == [(4, 4 * STEPS), (5, 5 * STEPS)]
    assert [row["learning_rate"] for row in table[2:]] == pytest.approx([0, cosine(16, 24), cosine(20, 24)])
    said = f"stopped early after epoch 5: the last {patience} values of val_loss were not better than "
    assert said in capfd.readouterr().err
    assert train(config, copy.path).position == position
    assert "is finished: " + said in capfd.readouterr().err
