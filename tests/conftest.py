"""Fixtures that every part of the suite shares."""

import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest

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
