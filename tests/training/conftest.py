"""A dataset and a configuration that train in seconds, and processes that train."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from psanet_tf.config import load_config

CONFIG = """
data:
  dataset: scenes
  root: {root}
  crop_size: [33, 33]
  # Without what makes the graph large; of which scale and mirroring are drawn as these are.
  augmentation: {{rotate_probability: 0, blur_probability: 0}}
model:
  blocks: [1, 1, 1, 1]
  width: 4
train:
  epochs: 3
  batch_size: 4
  learning_rate: 0.01
  head_learning_rate_factor: 1
  cpu_replicas: 1
  tensorboard: false
"""

# The `psanet` command for a process that is to compute the same bits as this one: by graphs as they were traced, too.
PROGRAM = """
import tensorflow as tf
from psanet_cli import app
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
app.main()
"""


def environment():
    """That of a user without a GPU: what TensorFlow says is for the command to decide."""
    inherited = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    return inherited | {"CUDA_VISIBLE_DEVICES": "-1"}


class Process:
    """A process of `fork_server.py`, with the methods of `subprocess.Popen`."""

    def __init__(self, ask, arguments, log, before):
        self._ask = ask
        Path(log).write_text("")  # there to be read from the start
        self.pid = ask(
            program=before + PROGRAM,
            arguments=list(map(str, arguments)),
            environment=environment(),
            log=str(log),
        )
        self.returncode = None

    def poll(self):
        if self.returncode is None:
            self.returncode = self._ask(pid=self.pid)
        return self.returncode

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("psanet", timeout)
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


@pytest.fixture(scope="session")
def start_psanet():
    """`start_psanet(["train", ...], log)` -> `Process` that runs the command and writes to the file `log`.

    `before` is Python that it runs first.
    """
    command = [sys.executable, Path(__file__).with_name("fork_server.py")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())

    def ask(**request):
        print(json.dumps(request), file=server.stdin, flush=True)
        return json.loads(server.stdout.readline())

    yield lambda arguments, log, before="": Process(ask, arguments, log, before)
    server.communicate()


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory):
    """18 training and 5 validation images of 40 x 44 in ADE20K's layout, with labels that depend on the colours."""
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    for split, count in (("training", 18), ("validation", 5)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            label = np.kron(rng.integers(0, 5, (5, 4)), np.ones((8, 11), int)).astype(np.uint8)
            image = (label[..., None] * 50 + rng.integers(0, 20, (40, 44, 3))).astype(np.uint8)
            Image.fromarray(image).save(root / "images" / split / f"{index}.jpg", quality=95)
            Image.fromarray(label).save(root / "annotations" / split / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def config_file(dataset_root, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG.format(root=dataset_root))
    return path


@pytest.fixture
def config(config_file):
    """`config("train.epochs=1")` -> Config."""
    return lambda *overrides: load_config(config_file, overrides)
