"""Reliability diagrams: how often a network is right, by how sure it says it is."""

import numpy as np
from PIL import Image, ImageDraw

from psanet_tf.reliability import NUM_BINS, Reliability
from psanet_tf.visualization.legend import font

_INK, _SOFT, _PAPER = (20, 20, 20), (150, 155, 165), (255, 255, 255)
_ACCURACY, _SURER, _HUMBLER, _PIXELS = (37, 99, 168), (226, 120, 106), (128, 190, 140), (176, 184, 196)
_SIDE = 300  # of the square of accuracies
_HISTOGRAM = 64
_LEFT, _TOP, _GAP = 52, 52, 40


def reliability_image(reliability: Reliability, title: str) -> np.ndarray:
    """Draws a reliability diagram over the histogram of confidences.

    Args:
        reliability: `Reliability`.
        title: one line.

    Returns:
        uint8 [height, width, 3]. Bars: the accuracy of each bin. Between it and the bin's mean confidence it is red
        where the network is surer than it may be, green where it could be surer. On the diagonal nothing is between.
    """
    width, height = _LEFT + _SIDE + 16, _TOP + _SIDE + _GAP + _HISTOGRAM + 40
    image = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(image)
    error = reliability.expected_calibration_error
    draw.text((_LEFT, 6), title, fill=_INK, font=font(14))
    draw.text((_LEFT, 27), f"expected calibration error {100 * error:.2f} %", fill=_INK, font=font(13))
    bottom = _TOP + _SIDE
    for index in np.flatnonzero(reliability.pixels):
        left, right = _across(index / NUM_BINS) + 1, _across((index + 1) / NUM_BINS) - 1
        accuracy, confidence = reliability.accuracy[index], reliability.mean_confidence[index]
        draw.rectangle((left, _down(accuracy), right, bottom), fill=_ACCURACY)
        low, high = sorted((accuracy, confidence))
        draw.rectangle((left, _down(high), right, _down(low)), fill=_SURER if confidence > accuracy else _HUMBLER)
    draw.line((_across(0), bottom, _across(1), _TOP), fill=_SOFT, width=2)
    draw.rectangle((_LEFT, _TOP, _LEFT + _SIDE, bottom), outline=_INK)
    base = bottom + _GAP + _HISTOGRAM
    largest = max(reliability.shares.max(), 1e-9)
    for index, share in enumerate(reliability.shares):
        left, right = _across(index / NUM_BINS) + 1, _across((index + 1) / NUM_BINS) - 1
        if share:
            draw.rectangle((left, base - _HISTOGRAM * share / largest, right, base), fill=_PIXELS)
    draw.line((_LEFT, base, _LEFT + _SIDE, base), fill=_INK)
    draw.text((_LEFT, bottom + _GAP - 16), f"pixels, at most {100 * largest:.0f} % in a bin", fill=_INK, font=font(11))
    for tick in np.linspace(0, 1, 6):
        draw.text((_across(tick), bottom + 5), f"{tick:g}", fill=_INK, font=font(11), anchor="mt")
        draw.text((_across(tick), base + 5), f"{tick:g}", fill=_INK, font=font(11), anchor="mt")
        draw.text((_LEFT - 6, _down(tick)), f"{tick:g}", fill=_INK, font=font(11), anchor="rm")
    draw.text((_LEFT + _SIDE / 2, height - 4), "confidence", fill=_INK, font=font(12), anchor="mb")
    draw.text((_LEFT + 6, _TOP + 5), "accuracy", fill=_INK, font=font(12))
    return np.asarray(image)


def _across(value):
    return _LEFT + round(_SIDE * float(value))


def _down(value):
    return _TOP + _SIDE - round(_SIDE * float(np.clip(value, 0, 1)))
