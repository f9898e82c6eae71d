"""Which pictures look alike: frames of a video, bursts of a camera, copies of another size.

By their colours, place by place, not by the network's features: these are alike for all streets, so that leaving out
by them would leave out what a network finds hard about streets. Colours cost no pass of the network, and mean the same
for every network.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image

_SIDE = 64  # pixels, to which pictures are reduced
_CELLS = 8  # along a side
_LEVELS = 6  # of each of red, green and blue


def look_of(picture: np.ndarray) -> np.ndarray:
    """What a picture looks like, in numbers: histograms of its colours in 8 x 8 parts.

    A colour counts for the eight nearest of 6 x 6 x 6 colours, so that a little more light changes little. In the
    scenes of `psanet data scenes`, which are much alike, copies (compressed, lighter, noisy, moved or cut by a
    fiftieth) have products from 0.97 on, different ones up to 0.88.

    Args:
        picture: uint8 [H, W, 3], RGB.

    Returns:
        float32 [13824], of length 1. The product of two is 1 for pictures of equal colours and 0 where no part has a
        colour in common (the mean of the parts' Bhattacharyya coefficients).
    """
    small = Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    level = np.asarray(small, np.float64).reshape(-1, 3) / 255 * (_LEVELS - 1)
    lower = np.minimum(level.astype(int), _LEVELS - 2)
    above = level - lower
    part = np.arange(_SIDE) * _CELLS // _SIDE
    cell = (part[:, None] * _CELLS + part).ravel()
    histogram = np.zeros(_CELLS**2 * _LEVELS**3)
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, above, 1 - above).prod(axis=1)
        red, green, blue = (lower + corner).T
        index = ((cell * _LEVELS + red) * _LEVELS + green) * _LEVELS + blue
        histogram += np.bincount(index, weight, len(histogram))
    return np.sqrt(histogram / _SIDE**2).astype(np.float32)


def thinned(looks: Iterable[np.ndarray], count: int, similarity: float) -> list[tuple[int, int]]:
    """Takes pictures in their order, but for those that look like one that was taken.

    Args:
        looks: of `look_of`, the most wanted first; what comes after the last one that is taken is not asked for.
        count: how many to take at most.
        similarity: what looks alike: a product above this. 1 takes all, copies too.

    Returns:
        [(index, number of those left out because they look like it), ...].
    """
    taken, left_out, kept = [], [], []
    for index, look in enumerate(looks):
        if kept and similarity < 1:
            products = np.stack(kept) @ look
            nearest = int(products.argmax())
            if products[nearest] > similarity:
                left_out[nearest] += 1
                continue
        taken.append(index)
        left_out.append(0)
        kept.append(look)
        if len(taken) == count:
            break
    return list(zip(taken, left_out, strict=True))
