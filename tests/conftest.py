"""Fixtures that every part of the suite shares."""

import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
import tensorflow as tf

# Two devices on every machine, before anything starts TensorFlow's runtime: tests of replicas need them.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden():
    """`golden("psa_mask")` -> (arrays, meta): numbers of the original implementation.

    Looks in tests/golden, then in the folder that the environment variable PSANET_GOLDEN names.
    """

    def load(name):
        folders = [GOLDEN] + [Path(folder) for folder in [os.environ.get("PSANET_GOLDEN")] if folder]
        for folder in folders:
            if (folder / f"{name}.npz").is_file():
                arrays = np.load(folder / f"{name}.npz")
                return arrays, json.loads(str(arrays["meta"]))
        pytest.skip(f"{name}.npz is neither in tests/golden nor in PSANET_GOLDEN")

    return load


@pytest.fixture(scope="session")
def two_replicas():
    """MirroredStrategy on two CPU devices. One for the whole process: a second one reuses the first one's
    keys of collective operations, and TensorFlow aborts where shapes or dtypes then differ.
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
