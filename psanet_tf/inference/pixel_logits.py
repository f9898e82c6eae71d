"""What the probabilities of single pixels are averages of: the logits, before any softmax."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

_BLOCK_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class PixelLogits:
    """All logits that the probabilities of some pixels come from.

    A protocol's probabilities are sums of softmax functions, over crops, mirror images, scales and the neighbours that
    a resize mixes, with weights that no probability changes. So one pass of the network tells them at every
    temperature T: those of pixel p are the sum of ``weights[e] * softmax(logits[e] / T)`` over its entries e.

    Attributes:
        logits: float32 [E, K].
        weights: float32 [E], above 0; those of a pixel sum to 1.
        starts: int64 [P]: where the entries of each pixel begin; they lie one after the other.
    """

    logits: np.ndarray
    weights: np.ndarray
    starts: np.ndarray

    @classmethod
    def of_entries(cls, entries: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> "PixelLogits":
        """Puts entries that come in any order together.

        Args:
            entries: (int [e] pixels counted from 0, float [e] weights, float32 [e, K] logits), any number of times;
                every pixel has an entry.
        """
        pixels, weights, logits = (np.concatenate(parts) for parts in zip(*entries, strict=True))
        order = np.argsort(pixels, kind="stable")
        starts = np.flatnonzero(np.diff(pixels[order], prepend=-1))
        return cls(logits[order], weights[order].astype(np.float32), starts)

    @classmethod
    def joined(cls, parts: Sequence["PixelLogits"]) -> "PixelLogits":
        """The pixels of all parts, in their order."""
        before = np.cumsum([0, *(len(part.weights) for part in parts[:-1])])
        starts = [part.starts + first for part, first in zip(parts, before, strict=True)]
        return cls(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.weights for part in parts]),
            np.concatenate(starts),
        )

    def __len__(self) -> int:
        """P."""
        return len(self.starts)

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """float32 [P, K], those of the protocol with all logits divided by `temperature`."""
        result = np.empty((len(self), self.logits.shape[1]), np.float32)
        for pixels, entries, starts in self._blocks():
            logits = self.logits[entries] / np.float32(temperature)
            exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
            exponents *= self.weights[entries, None] / exponents.sum(axis=1, keepdims=True)
            result[pixels] = np.add.reduceat(exponents, starts, axis=0)
        return result

    def log_likelihood(self, labels: np.ndarray, temperature: float = 1.0) -> float:
        """Mean over the pixels of the logarithm of their label's probability, in nats.

        Exact where the probabilities themselves are too small for any number.

        Args:
            labels: int [P], classes.
            temperature: as of `probabilities`.
        """
        classes = np.repeat(labels, np.diff(self.starts, append=len(self.weights)))
        total = 0.0
        for _, entries, starts in self._blocks():
            logits = self.logits[entries] / np.float32(temperature)
            largest = logits.max(axis=1)
            normalizer = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
            own = logits[np.arange(len(logits)), classes[entries]].astype(np.float64)
            terms = np.log(self.weights[entries].astype(np.float64)) + own - normalizer
            highest = np.maximum.reduceat(terms, starts)
            counts = np.diff(starts, append=len(terms))
            sums = np.add.reduceat(np.exp(terms - np.repeat(highest, counts)), starts)
            total += float((highest + np.log(sums)).sum())
        return total / len(self)

    def _blocks(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """(pixels, their entries, where each begins among these), so many that temporaries stay small."""
        ends = np.append(self.starts[1:], len(self.weights))
        largest = max(1, _BLOCK_BYTES // (4 * self.logits.shape[1]))
        first = 0
        while first < len(self):
            begin = self.starts[first]
            stop = max(first + 1, int(np.searchsorted(ends, begin + largest, side="right")))
            yield slice(first, stop), slice(begin, ends[stop - 1]), self.starts[first:stop] - begin
            first = stop


def bilinear_neighbours(index: np.ndarray, length: int, source: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Which places along an axis a resize with half-pixel centres mixes, as `row_bands` does it.

    Args:
        index: int [P], places along the axis of the result.
        length: of the result's axis.
        source: length of the axis that is resized.

    Returns:
        Two pairs of int [P] places along the source, and float64 [P] weights, some of them 0.
    """
    position = (index + 0.5) * (source / length) - 0.5
    above = np.floor(position)
    weight = position - above
    upper, lower = (np.clip(place, 0, source - 1).astype(np.int64) for place in (above, above + 1))
    return [(upper, 1 - weight), (lower, weight)]
