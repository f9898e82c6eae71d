"""Which pictures look alike: frames of a video, bursts of a camera, copies of another size.

By their colours, place by place, not by the network's features: these are alike for all streets, so that leaving out
by them would leave out what a network finds hard about streets. Colours cost no pass of the network, and mean the same
for every network.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

_SIDE = 64  # pixels, to which pictures are reduced
_CELLS = 4  # along a side
_LEVELS = 4  # of each of red, green and blue


def look_of(picture: np.ndarray) -> np.ndarray:
    """What a picture looks like, in numbers: histograms of its colours in 4 x 4 parts.

    A colour counts for the eight nearest of 4 x 4 x 4 colours, so that a little more light changes little.

    Args:
        picture: uint8 [H, W, 3], RGB.

    Returns:
        float32 [1024], of length 1. The product of two is 1 for pictures of equal colours and 0 where no part has a
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


def thinned(looks: Sequence[np.ndarray], count: int, similarity: float) -> list[tuple[int, int]]:
    """Takes pictures in their order, but for those that look like one that was taken.

    Args:
        looks: of `look_of`, the most wanted first.
        count: how many to take at most.
        similarity: what looks alike: a product above this. 1 takes all, copies too.

    Returns:
        [(index, number of those left out because they look like it), ...]; what comes after the last one that was
        taken is not looked at.
    """
    taken, left_out = [], []
    for index, look in enumerate(looks):
        if len(taken) == count:
            break
        if taken and similarity < 1:
            products = np.stack([looks[other] for other in taken]) @ look
            nearest = int(products.argmax())
            if products[nearest] > similarity:
                left_out[nearest] += 1
                continue
        taken.append(index)
        left_out.append(0)
    return list(zip(taken, left_out, strict=True))
