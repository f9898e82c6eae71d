"""The expected calibration error against its definition, pixel by pixel."""

import numpy as np
import pytest

from psanet_tf import reliability as reliability_module
from psanet_tf.reliability import NUM_BINS, Reliability


def _by_definition(confidence, is_correct):
    """Guo et al. 2017, equations 2 and 3."""
    error = 0.0
    for number in range(1, NUM_BINS + 1):
        inside = [i for i, value in enumerate(confidence) if (number - 1) / NUM_BINS < value <= number / NUM_BINS]
        if inside:
            accuracy = sum(is_correct[i] for i in inside) / len(inside)
            mean = sum(confidence[i] for i in inside) / len(inside)
            error += len(inside) / len(confidence) * abs(accuracy - mean)
    return error


def test_the_error_is_that_of_its_definition_however_it_is_summed(monkeypatch):
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.01, 1, 500)
    is_correct = generator.uniform(size=500) < confidence**2
    whole = Reliability.measured(confidence.reshape(20, 25), is_correct.reshape(20, 25))
    assert whole.expected_calibration_error == pytest.approx(_by_definition(confidence, is_correct), abs=1e-12)
    monkeypatch.setattr(reliability_module, "_BLOCK", 7)
    parts = [Reliability.measured(confidence[part], is_correct[part]) for part in (slice(0, 123), slice(123, None))]
    for field in ("pixels", "correct", "confidence"):
        np.testing.assert_allclose(getattr(parts[0] + parts[1], field), getattr(whole, field))
    assert whole.pixels.sum() == 500
    assert whole.shares.sum() == pytest.approx(1)


def test_bins_hold_their_upper_edge_and_what_is_always_right_is_calibrated():
    edges = np.arange(1, 16, dtype=np.float64) / 15
    assert Reliability.measured(edges, np.ones(15, bool)).pixels.tolist() == [1] * 15
    certain = Reliability.measured(np.array([1.0, 1.00001, 0.0]), np.array([True, True, False]))
    assert certain.pixels[[0, -1]].tolist() == [1, 2]
    assert certain.expected_calibration_error < 1e-5
    nothing = Reliability.measured(np.zeros(0), np.zeros(0, bool))
    assert nothing.expected_calibration_error == 0


def test_lists_are_read_back_and_other_values_refused():
    found = Reliability.measured(np.array([0.3, 0.9]), np.array([True, False]))
    again = Reliability.from_lists(found.to_lists())
    assert again.to_lists() == found.to_lists()
    with pytest.raises(ValueError, match="three lists of 15 numbers"):
        Reliability.from_lists([[1], [2], [3]])
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(3,\)"):
        Reliability.measured(np.zeros(2), np.zeros(3, bool))
    with pytest.raises(ValueError, match=r"confidence must be 0 to 1, got 1\.5"):
        Reliability.measured(np.array([0.5, 1.5]), np.zeros(2, bool))
    with pytest.raises(ValueError, match="got nan: the network's answers are no numbers"):
        Reliability.measured(np.array([0.5, np.nan]), np.zeros(2, bool))
