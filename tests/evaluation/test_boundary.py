"""Boundary IoU against erosion mask by mask."""

import numpy as np
import pytest

from psanet_tf.evaluation.boundary import boundary_counts, boundary_iou


def _eroded(mask):
    """Erosion with a 3x3 square; outside of the image nothing is set."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.logical_and.reduce(shifted)


def _boundary(mask, width):
    inside = mask
    for _ in range(width):
        inside = _eroded(inside)
    return mask & ~inside


def _blobs(seed, size=(40, 53), classes=4):
    generator = np.random.default_rng(seed)
    small = generator.integers(0, classes, (size[0] // 8 + 1, size[1] // 8 + 1)).astype("uint8")
    return np.kron(small, np.ones((8, 8), "uint8"))[: size[0], : size[1]]


@pytest.mark.parametrize("width", [1, 3])
def test_counts_equal_erosion_class_by_class(width):
    label, prediction = _blobs(0), np.roll(_blobs(0), 2, axis=1)
    counts = boundary_counts(prediction, label, 4, width=width)
    for index in range(4):
        truth, predicted = _boundary(label == index, width), _boundary(prediction == index, width)
        assert counts[0, index] == (truth & predicted).sum()
        assert counts[1, index] == (truth | predicted).sum()


def test_equal_maps_score_one_and_absent_classes_zero():
    label = _blobs(1, classes=3)
    np.testing.assert_allclose(boundary_iou(boundary_counts(label, label, 4)), [1, 1, 1, 0], atol=1e-9)


def test_ignored_pixels_take_no_part():
    label = _blobs(2)
    prediction = label.copy()
    label[10:20, 5:30] = 255
    prediction[10:20, 5:30] = 0
    np.testing.assert_allclose(boundary_iou(boundary_counts(prediction, label, 4, width=2)), 1, atol=1e-9)


def test_one_pixel():
    assert boundary_counts(np.zeros((1, 1), int), np.zeros((1, 1), int), 2).tolist() == [[1, 0], [1, 0]]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="alike"):
        boundary_counts(np.zeros((2, 2), int), np.zeros((2, 3), int), 2)
