"""What the `psanet` command settles before TensorFlow is imported."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import absl.logging
import pytest

from psanet_cli import app as app_module
from psanet_cli.app import quiet_libraries

ROOT = Path(__file__).parents[2]
# How many pages the system hands out, zeroed, while twenty results of 40 MB are made and dropped.
FAULTS = """
import resource
from psanet_cli.app import keep_memory, quiet_libraries
quiet_libraries()
keep_memory()
import tensorflow as tf
x = tf.ones([10_000_000])
for index in range(21):
    if index == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    y = x + 1.0
    del y
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(("debug", "level"), [("", "3"), ("1", "0")])
def test_log_lines_of_libraries_are_shown_for_debugging_only(debug, level, monkeypatch):
    monkeypatch.setenv("PSANET_DEBUG", debug)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    of_abseil = []
    monkeypatch.setattr(app_module, "_quiet_abseil", lambda: of_abseil.append(1))
    verbosity, logger = absl.logging.get_verbosity(), logging.getLogger("tensorflow")
    python_level = logger.level
    absl.logging.set_verbosity(absl.logging.WARNING)
    logger.setLevel(logging.WARNING)
    try:
        quiet_libraries()
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == level
        assert logger.isEnabledFor(logging.WARNING) == absl.logging.level_warning() == bool(debug)
        assert bool(of_abseil) != bool(debug)
    finally:
        absl.logging.set_verbosity(verbosity)
        logger.setLevel(python_level)


def test_log_level_of_abseil_is_set_where_its_release_is_known(monkeypatch):
    found = []
    monkeypatch.setattr(app_module, "_FATAL", 99)  # a level that hides nothing that 3 does not hide

    def setters():
        for setter in original():
            found.append(setter.__name__)
            yield lambda level: found.append(level)

    original = app_module._abseil_level_setters
    monkeypatch.setattr(app_module, "_abseil_level_setters", setters)
    app_module._quiet_abseil()
    assert found[1:] == [99]
    assert "SetMinLogLevel" in found[0]
    monkeypatch.setattr(app_module, "_ABSEIL_RELEASES", ("20991231",))
    found.clear()
    app_module._quiet_abseil()
    assert found == []


@pytest.mark.extended
def test_memory_of_large_tensors_is_kept_for_the_next_ones():
    def faults(**settings):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_CPU_")}
        # Where oneDNN's kernels are on, as on processors with AVX-512 VNNI, TensorFlow keeps memory by itself.
        environment |= {"PYTHONPATH": str(ROOT), "TF_ENABLE_ONEDNN_OPTS": "0", **settings}
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], capture_output=True, text=True, env=environment, timeout=240
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    # A user's own setting counts.
    assert 5 * faults() < faults(TF_CPU_ALLOCATOR_USE_BFC="0")
