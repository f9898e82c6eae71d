"""How far confidence can be believed: pixels counted by bins of confidence, and the expected calibration error.

After Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015, and Guo et al., "On
Calibration of Modern Neural Networks", ICML 2017, whose 15 bins of equal width are used.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

NUM_BINS = 15
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Counts of pixels by confidence, the probability of the most probable class; several may be added.

    Bin m of M takes the confidences in ((m - 1) / M, m / M].

    Attributes:
        pixels: int64 [M].
        correct: int64 [M], how many of them have the label that they were given.
        confidence: float64 [M], the sum of their confidences.
    """

    pixels: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray

    @classmethod
    def measured(cls, confidence: np.ndarray, is_correct: np.ndarray) -> "Reliability":
        """The counts of some pixels.

        Args:
            confidence: float, any shape, 0 to 1.
            is_correct: bool, of the same shape.

        Raises:
            ValueError: the shapes differ, or a confidence is none.
        """
        confidence, is_correct = np.asarray(confidence), np.asarray(is_correct, bool)
        if confidence.shape != is_correct.shape:
            raise ValueError(
                f"confidence and is_correct must have one shape, got {confidence.shape} and {is_correct.shape}"
            )
        sums = np.zeros((3, NUM_BINS))
        confidence, is_correct = confidence.ravel(), is_correct.ravel()
        # In blocks: bincount makes 8 bytes of every pixel.
        for start in range(0, confidence.size, _BLOCK):
            block = confidence[start : start + _BLOCK].astype(np.float64)
            # Rounding may take a sum of probabilities a little beyond 1.
            if not ((block >= 0) & (block <= 1 + 1e-4)).all():
                wrong = block[~((block >= 0) & (block <= 1 + 1e-4))][0]
                advice = ": the network's answers are no numbers, as after a training that diverged"
                raise ValueError(f"confidence must be 0 to 1, got {wrong}{advice if np.isnan(wrong) else ''}")
            bins = np.clip(np.ceil(block * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
            for row, weights in enumerate((None, is_correct[start : start + _BLOCK], block)):
                sums[row] += np.bincount(bins, weights, NUM_BINS)
        return cls(sums[0].astype(np.int64), sums[1].astype(np.int64), sums[2])

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(self.pixels + other.pixels, self.correct + other.correct, self.confidence + other.confidence)

    @property
    def accuracy(self) -> np.ndarray:
        """float64 [M]: the share of each bin's pixels that are right; 0 where there are none."""
        return self.correct / np.maximum(self.pixels, 1)

    @property
    def mean_confidence(self) -> np.ndarray:
        """float64 [M]: the mean confidence of each bin's pixels; 0 where there are none."""
        return self.confidence / np.maximum(self.pixels, 1)

    @property
    def shares(self) -> np.ndarray:
        """float64 [M]: how the pixels are spread over the bins."""
        return self.pixels / max(1, self.pixels.sum())

    @property
    def expected_calibration_error(self) -> float:
        """The mean over all pixels of the distance between their bin's accuracy and its mean confidence, 0 to 1."""
        return float((self.shares * np.abs(self.accuracy - self.mean_confidence)).sum())

    def to_lists(self) -> list[list[float]]:
        """What `from_lists` takes back, for JSON."""
        return [self.pixels.tolist(), self.correct.tolist(), self.confidence.tolist()]

    @classmethod
    def from_lists(cls, values: Sequence[Sequence[float]]) -> "Reliability":
        """Raises ValueError or TypeError where `values` are not what `to_lists` gives."""
        pixels, correct, confidence = values
        result = cls(np.array(pixels, np.int64), np.array(correct, np.int64), np.array(confidence, np.float64))
        if not result.pixels.shape == result.correct.shape == result.confidence.shape == (NUM_BINS,):
            raise ValueError(f"reliability must be three lists of {NUM_BINS} numbers, got {values}")
        return result
