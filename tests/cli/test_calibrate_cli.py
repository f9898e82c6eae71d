"""`psanet calibrate`, as a user calls it."""

import numpy as np
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf.evaluation import calibration as calibration_module
from psanet_tf.reliability import Reliability
from psanet_tf.weights.calibration import Calibration


def run(*arguments):
    _register()
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def test_calibrate_says_what_it_found_and_where_it_is(monkeypatch):
    """Whether it finds it: tests/evaluation/test_calibration.py."""
    called = []
    before = Reliability.measured(np.full(4, 0.9), np.array([True, True, False, False]))
    after = Reliability.measured(np.full(4, 0.6), np.array([True, True, False, False]))
    found = Calibration(1.5, "validation", 3, 4, (0.8, 0.7), before, after, 0.25)

    def calibrate(*arguments):
        called.append(arguments)
        return found, "runs/a/best.keras", {"b": "b.png is not a readable image"}

    monkeypatch.setattr(calibration_module, "calibrate", calibrate)
    result = run("--weights", "runs/a", "--set", "data.root=x", "--pixels", 4, "--seed", 2)
    assert called == [("runs/a", None, ["data.root=x"], None, False, None, 4, 2)]
    assert "temperature 1.5000, fitted to 4 pixels of 3 images of split 'validation'" in result.output
    assert "expected calibration error: 40.00 % before, 10.00 % after" in result.output
    assert "negative log likelihood:    0.8000 before, 0.7000 after" in result.output
    assert "labels that change: 25.00% of these pixels" in result.output
    assert "stored in runs/a/best.keras" in result.output
    assert "1 images could not be read:\n  b.png is not a readable image" in result.output
    assert result.exit_code == 1
