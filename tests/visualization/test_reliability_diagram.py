"""Reliability diagrams show accuracies, and on which side of the confidence they are."""

import numpy as np

from psanet_tf.reliability import Reliability
from psanet_tf.visualization.reliability import reliability_image


def _heights(image, color):
    """How many rows of the plot have the colour, in each column that has any."""
    is_color = (image == np.array(color)).all(-1)
    counts = is_color.sum(0)
    return counts[counts > 0]


def test_bars_are_as_high_as_the_accuracy_and_red_where_the_network_is_too_sure():
    confidence = np.repeat([0.95, 0.5], 1000)
    accuracy = np.repeat([0.6, 0.8], 1000)
    is_correct = np.tile(np.arange(1000) / 1000, 2) < accuracy
    image = reliability_image(Reliability.measured(confidence, is_correct), "two bins")
    assert image.dtype == np.uint8
    blue, red, green = (_heights(image, color) for color in ((37, 99, 168), (226, 120, 106), (128, 190, 140)))
    # A side has 300 pixels; the diagonal is drawn over the bars.
    assert abs(np.median(red) - 0.35 * 300) <= 3
    assert abs(np.median(green) - 0.3 * 300) <= 3
    assert abs(np.sort(blue)[-5] - 0.6 * 300) <= 4
    assert abs(np.sort(blue)[5] - 0.5 * 300) <= 4
