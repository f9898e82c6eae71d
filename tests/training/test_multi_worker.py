"""Two workers on loopback: equal to one process, and what happens when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from psanet_tf.config import load_config
from psanet_tf.training import multi_worker
from psanet_tf.training.checkpoints import load_trained
from psanet_tf.training.multi_worker import has_workers, set_workers
from psanet_tf.training.trainer import train

OVERRIDES = (
    "model.use_psa=false",
    "train.learning_rate=0.001",
    "train.epochs=1",
    "model.dropout=0",
    "train.cpu_replicas=2",
)
SECONDS_TO_NOTICE = 60


def start(config_file, run_dir, *overrides):
    """Two workers; their output goes to files beside the run folder."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    workers = ",".join(f"127.0.0.1:{port}" for port in ports)
    processes = []
    for index in range(2):
        command = [sys.executable, "-m", "psanet_tf", "train", "--config", str(config_file), "--run-dir", str(run_dir)]
        command += ["--workers", workers, "--index", str(index)]
        for override in (*OVERRIDES, *overrides):
            command += ["--set", override]
        log = open(f"{run_dir}.{index}.log", "w")  # noqa: SIM115
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
        processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment))
    return processes


def end(processes, seconds):
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_dead_worker_stops_the_other_and_both_together_end_as_one_process(config_file, tmp_path):
    run_dir = tmp_path / "two"
    first, second = start(config_file, run_dir, "train.save_every_steps=1")
    try:
        deadline = time.monotonic() + 240
        while not (run_dir / "state.npz").exists() and time.monotonic() < deadline and first.poll() is None:
            time.sleep(0.02)
        assert (run_dir / "state.npz").exists(), (tmp_path / "two.0.log").read_text()
        second.send_signal(signal.SIGKILL)
        second.wait()
        assert first.wait(SECONDS_TO_NOTICE) == 1
    finally:
        first.kill()
        second.kill()
    assert "another worker is gone; give the same command on all workers again" in (tmp_path / "two.0.log").read_text()

    assert end(start(config_file, run_dir, "train.save_every_steps=1"), 240) == [0, 0], [
        (tmp_path / f"two.{index}.log").read_text() for index in range(2)
    ]
    one = train(load_config(config_file, OVERRIDES), tmp_path / "one").run
    for ours, theirs in zip(
        *(load_trained(run).model.get_weights() for run in (one.last_file, run_dir / "last.keras")), strict=True
    ):
        assert np.max(np.abs(ours - theirs)) <= 1e-5 * max(np.max(np.abs(ours)), 1e-3)
    rows = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (one.path, run_dir)
    ]
    for ours, theirs in zip(*rows, strict=True):
        for key in ours.keys() - {"seconds", "images_per_second"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key


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

    monkeypatch.setattr(multi_worker.keras_trainer, "reduce_per_replica", changed)
    with pytest.raises(RuntimeError, match=r"has changed .*changed.*keras/issues/20585"):
        multi_worker.patch_keras()
