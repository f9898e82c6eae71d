"""Two workers on loopback: equal to one process, and what happens when one is stopped, dies, or has other settings."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import time

import numpy as np
import pytest

from psanet_tf.config import load_config
from psanet_tf.training import multi_worker, trainer
from psanet_tf.training.agreement import data_in_words
from psanet_tf.training.multi_worker import has_workers, set_workers
from psanet_tf.training.trainer import train
from psanet_tf.weights.checkpoints import load_trained

OVERRIDES = (
    "model.use_psa=false",
    "train.learning_rate=0.001",
    "train.epochs=1",
    "model.dropout=0",
    "train.zoom_factor=2",
    "train.class_weights=median_frequency",
    "train.log_every=1",
)
SECONDS_TO_NOTICE = 60


@pytest.fixture
def start(start_psanet, config_file):
    """`start(run_dir, *overrides)` -> two workers, with `second` as further overrides of the second.

    Their output goes to files beside the run folder.
    """

    def start(run_dir, *overrides, second=(), before=""):
        ports = []
        for _ in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports.append(free.getsockname()[1])
        workers = ",".join(f"127.0.0.1:{port}" for port in ports)
        processes = []
        for index in range(2):
            command = ["train", "--config", config_file, "--run-dir", run_dir, "--workers", workers, "--index", index]
            for override in (*OVERRIDES, *overrides, *(second if index else ())):
                command += ["--set", override]
            processes.append(start_psanet(command, f"{run_dir}.{index}.log", before))
        return processes

    return start


def end(processes, seconds):
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait(60)


def logs(run_dir):
    return [run_dir.with_name(f"{run_dir.name}.{index}.log").read_text() for index in range(2)]


def saved(run_dir):
    """(epoch, step) of the saved state."""
    if not (run_dir / "state.npz").exists():
        return (0, 0)
    with np.load(run_dir / "state.npz") as stored:
        position = json.loads(str(stored["facts"]))["position"]
    return position["epoch"], position["step"]


@contextlib.contextmanager
def once_they_train(run_dir, processes):
    """Goes on when the workers have taken and saved steps; ends what is left of them."""
    before = saved(run_dir)
    try:
        deadline = time.monotonic() + 240
        while saved(run_dir) == before:
            assert time.monotonic() < deadline and processes[0].poll() is None, logs(run_dir)
            time.sleep(0.02)
        yield
    finally:
        for process in processes:
            process.kill()


def test_stopped_workers_stop_the_other_and_all_together_end_as_one_process(start, config_file, tmp_path):
    run_dir, often = tmp_path / "two", "train.save_every_steps=1"
    first, second = start(run_dir, often)
    with once_they_train(run_dir, (first, second)):
        second.send_signal(signal.SIGTERM)
        assert [process.wait(240) for process in (first, second)] == [143, 143], logs(run_dir)
    assert all("psanet: stopped by SIGTERM in epoch 1 of 1" in log for log in logs(run_dir))
    assert saved(run_dir)[0] == 0

    assert end(start(run_dir, often), 240) == [0, 0], logs(run_dir)
    one = train(load_config(config_file, OVERRIDES), tmp_path / "one").run
    models = [load_trained(run).model for run in (one.last_file, run_dir / "last.keras")]
    # Trained on coarse labels, saved as a network for all pixels.
    assert all(model.output["logits"].shape[1:3] == (33, 33) for model in models)
    for ours, theirs in zip(*(model.get_weights() for model in models), strict=True):
        # Shifts begin at 0 and are sums of gradients that nearly cancel: their rounding is that of larger numbers.
        assert np.max(np.abs(ours - theirs)) <= 1e-5 * max(np.max(np.abs(ours)), 0.05)
    rows = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (one.path, run_dir)
    ]
    for ours, theirs in zip(*rows, strict=True):
        for key in ours.keys() - {"seconds", "images_per_second"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key


# In the place of a training: steps without end in which the workers meet, as they do in those of `fit`.
MEETING = """
from psanet_tf.training import trainer
def meet(config, run_dir, **options):
    strategy = trainer.build_multi_worker_strategy()
    with trainer._lost_workers(strategy):
        while True:
            trainer.Agreement(strategy).wait()
            print("met", flush=True)
trainer.train = meet
"""


def test_a_dead_worker_ends_the_other(start, tmp_path):
    run_dir = tmp_path / "two"
    first, second = start(run_dir, before=MEETING)
    try:
        deadline = time.monotonic() + 240
        while not all("met" in log for log in logs(run_dir)):
            assert time.monotonic() < deadline and first.poll() is None, logs(run_dir)
            time.sleep(0.02)
        second.send_signal(signal.SIGKILL)
        second.wait(60)
        assert first.wait(SECONDS_TO_NOTICE) == 1
    finally:
        end((first, second), SECONDS_TO_NOTICE)
    # Nothing but what the command says: no lines of TensorFlow about collective operations, devices, or oneDNN.
    log = logs(run_dir)[0]
    assert "another worker is gone; give the same command on all workers again" in log
    assert not [
        line for line in log.splitlines() if re.match(r"\d{4}-\d\d-\d\d .*: [IEW] |[IEW]\d{4} |WARNING: ", line)
    ]


def test_workers_with_different_settings_do_not_train(start, tmp_path):
    run_dir = tmp_path / "two"
    assert end(start(run_dir, second=("train.seed=7",)), 240) == [2, 2], logs(run_dir)
    message = "workers must have the same configuration: train.seed is 0 on worker 0, 7 on worker 1"
    assert all(message in log for log in logs(run_dir))
    assert not (run_dir / "config.yaml").exists()


def test_other_images_are_other_data(config, dataset_root, tmp_path):
    words = data_in_words(config().data)
    assert words["split 'training'"].startswith("18 images (names and sizes ")
    shutil.copytree(dataset_root, tmp_path / "data")
    copied = config(f"data.root={tmp_path / 'data'}").data
    assert data_in_words(copied) == words
    with open(tmp_path / "data" / "images" / "training" / "3.jpg", "ab") as file:
        file.write(b"0")
    assert [key for key, value in data_in_words(copied).items() if value != words[key]] == ["split 'training'"]


def test_others_wait_for_the_first_worker_to_write_the_scenes(config, dataset_root, tmp_path, monkeypatch):
    class ReachedError(Exception):
        pass

    def build_job(*arguments):
        raise ReachedError

    monkeypatch.setattr(trainer, "runs_as_chief", lambda strategy: False)
    monkeypatch.setattr(trainer, "build_job", build_job)
    monkeypatch.setattr(trainer.Agreement, "wait", lambda self: shutil.copytree(dataset_root, tmp_path / "scenes"))
    with pytest.raises(ReachedError):
        train(config(f"data.root={tmp_path / 'scenes'}"), tmp_path / "run")


@pytest.mark.parametrize(
    ("workers", "index", "message"),
    [
        ("a:1", 0, "two or more"),
        ("a:1,a:1", 0, "two or more different"),
        ("a:1,b", 0, "host:port, got 'b'"),
        ("a:1,b:99999", 0, "host:port"),
        ("a:1,b:2", 2, "--index: must be 0..1"),
        ("a:1,b:2", None, "--index"),
        ("", 1, "two or more"),
    ],
)
def test_wrong_workers(workers, index, message):
    with pytest.raises(ValueError, match=message):
        set_workers(workers, index)


def test_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert not has_workers()
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(ValueError, match="TF_CONFIG is not JSON"):
        has_workers()
    set_workers("a:1,b:2", 1)
    assert has_workers()
    assert json.loads(os.environ["TF_CONFIG"])["task"] == {"type": "worker", "index": 1}


def test_another_keras_is_refused(monkeypatch):
    def changed(values, strategy, reduction):
        return values

    trainer = multi_worker._keras_trainer()
    monkeypatch.setattr(trainer, "reduce_per_replica", changed)
    with pytest.raises(RuntimeError, match=r"replaces .*changed of Keras .*keras/issues/20585.*Use the Keras of"):
        multi_worker.patch_keras()
    monkeypatch.delattr(trainer.TensorFlowTrainer, "_maybe_symbolic_build")
    with pytest.raises(RuntimeError, match="replaces TensorFlowTrainer._maybe_symbolic_build of Keras"):
        multi_worker.patch_keras()
    monkeypatch.setattr(multi_worker, "_keras_trainer", lambda: None)
    with pytest.raises(RuntimeError, match="replaces keras.src.backend.tensorflow.trainer of Keras"):
        multi_worker.patch_keras()
