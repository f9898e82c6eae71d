"""The fitted temperature against a search through all of them."""

import numpy as np
import pytest

from psanet_tf.evaluation.temperature import fit_temperature
from psanet_tf.inference.pixel_logits import PixelLogits


def _drawn(generator, pixels, entries, truth, spread=1.0):
    """Pixels whose labels are drawn from their probabilities at temperature `truth`."""
    logits = generator.normal(scale=3, size=(pixels, entries, 4)) * spread
    weights = generator.dirichlet(np.ones(entries), pixels)
    found = PixelLogits(
        logits.reshape(-1, 4).astype(np.float32),
        weights.ravel().astype(np.float32),
        np.arange(pixels) * entries,
    )
    probabilities = found.probabilities(truth).astype(np.float64)
    labels = (probabilities.cumsum(1) / probabilities.sum(1, keepdims=True) < generator.uniform(size=(pixels, 1))).sum(
        1
    )
    return found, labels, logits, weights


def _loss(logits, weights, labels, temperature):
    """Negative log likelihood, softmax by softmax."""
    total = 0.0
    for pixel, label in enumerate(labels):
        exponents = np.exp(logits[pixel] / temperature)
        total -= np.log((weights[pixel] * exponents[:, label] / exponents.sum(1)).sum())
    return total / len(labels)


@pytest.mark.parametrize(("entries", "truth"), [(1, 1.8), (3, 0.6)])
def test_the_temperature_is_the_best_of_all(entries, truth):
    pixels, labels, logits, weights = _drawn(np.random.default_rng(1), 600, entries, truth)
    found = fit_temperature(pixels, labels)
    grid = np.exp(np.linspace(np.log(0.4), np.log(3), 81))
    best = grid[np.argmin([_loss(logits, weights, labels, value) for value in grid])]
    assert found == pytest.approx(best, rel=0.02)
    assert found == pytest.approx(truth, rel=0.25)
    at_best = _loss(logits, weights, labels, found)
    assert at_best <= min(_loss(logits, weights, labels, found * factor) for factor in (0.98, 1.02))
    assert -pixels.log_likelihood(labels, found) == pytest.approx(at_best, rel=1e-5)


def test_networks_that_no_temperature_suits_are_refused():
    pixels, _, logits, _ = _drawn(np.random.default_rng(2), 200, 1, 1.0)
    always_right = logits[:, 0].argmax(1)
    with pytest.raises(ValueError, match=r"200 pixels 100.0% are labelled rightly, and the lower .* harder images"):
        fit_temperature(pixels, always_right)
    with pytest.raises(
        ValueError, match=r"200 pixels 0.0% .* the higher the temperature, the better; train the network"
    ):
        fit_temperature(pixels, logits[:, 0].argmin(1))
