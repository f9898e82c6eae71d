"""The temperature at which a network's probabilities suit the labels best."""

import math

import numpy as np

from psanet_tf.inference.pixel_logits import PixelLogits

TEMPERATURES = (0.05, 20.0)
"""Where it is looked for."""

_STEPS = 13  # of a first look
_PRECISION = 5e-4  # relative
_GOLDEN = (math.sqrt(5) - 1) / 2


def fit_temperature(pixels: PixelLogits, labels: np.ndarray) -> float:
    """The temperature with the least negative log likelihood of the labels.

    Without averages the likelihood has one optimum (Guo et al. 2017, supplement S3). A sum of softmax functions need
    not, so that the whole range is looked over first, and the best place then narrowed down by golden sections.

    Args:
        pixels: `PixelLogits`.
        labels: int [P], the class of each.

    Returns:
        A number between those of `TEMPERATURES`.

    Raises:
        ValueError: the best one is beyond them: hardly a pixel is wrong, or the network knows nothing of the labels.
    """

    def loss(logarithm):
        return -pixels.log_likelihood(labels, math.exp(logarithm))

    grid = np.linspace(*np.log(TEMPERATURES), _STEPS)
    best = int(np.argmin([loss(place) for place in grid]))
    if best in (0, _STEPS - 1):
        right = (pixels.probabilities().argmax(1) == labels).mean()
        way, advice = ("lower", "give more or harder images")
        if best:
            way, advice = ("higher", "train the network further, or give the labels that it was made for")
        raise ValueError(
            f"no temperature from {TEMPERATURES[0]:g} to {TEMPERATURES[1]:g} suits best: of {len(labels)} pixels "
            f"{right:.1%} are labelled rightly, and the {way} the temperature, the better; {advice}"
        )
    low, high = grid[best - 1], grid[best + 1]
    first, second = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_first, at_second = loss(first), loss(second)
    while high - low > _PRECISION:
        if at_first < at_second:
            high, second, at_second = second, first, at_first
            first = high - _GOLDEN * (high - low)
            at_first = loss(first)
        else:
            low, first, at_first = first, second, at_second
            second = low + _GOLDEN * (high - low)
            at_second = loss(second)
    return math.exp((low + high) / 2)
