"""Polygons, ellipses and run lengths against slow and obvious references."""

import numpy as np
import pytest
from annotation_exports import brush, runs

from psanet_tf.data.importing.run_lengths import alternating_runs, coco_mask, label_studio_mask
from psanet_tf.data.importing.shapes import Shape, Shapes, ellipse, inside


def slow_inside(rings, size):
    """Counts, for the middle of each pixel, the edges to its left."""
    found = np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y = column + 0.5, row + 0.5
            for ring in rings:
                for (x1, y1), (x2, y2) in zip(ring, [*ring[1:], ring[0]], strict=True):
                    if (y1 <= y) != (y2 <= y) and x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x:
                        found[row, column] ^= True
    return found


def test_polygons_are_the_pixels_whose_middle_is_inside():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rings = [rng.uniform(-5, 25, (rng.integers(3, 9), 2)).tolist() for _ in range(rng.integers(1, 4))]
        size = (18, 21)
        assert np.array_equal(inside(rings, size), slow_inside(rings, size))
        codes = Shapes("x", [Shape(0, rings)], 1).codes(size)
        assert np.array_equal(codes == 0, slow_inside(rings, size))


def test_neighbours_share_an_edge_and_no_pixel():
    left = inside([[(0, 0), (7.3, 0), (9.8, 12), (0, 12)]], (12, 16))
    right = inside([[(7.3, 0), (16, 0), (16, 12), (9.8, 12)]], (12, 16))
    assert np.array_equal(left, ~right)


def test_a_ring_in_a_ring_is_a_hole_and_later_shapes_lie_on_top():
    rings = [[(1, 1), (9, 1), (9, 9), (1, 9)], [(3, 3), (6, 3), (6, 6), (3, 6)]]
    codes = Shapes("x", [Shape(0, rings), Shape(1, [[(0, 0), (2, 0), (2, 2), (0, 2)]])], 2).codes((10, 10))
    assert codes[1, 1] == 1
    assert codes[2, 2] == 0
    assert codes[4, 4] == 2
    assert (codes == 0).sum() == 64 - 9 - 1


def test_an_ellipse_has_its_area_wherever_it_is_turned_to():
    for degrees in (0, 30, 90):
        found = inside([ellipse(30, 25, 20, 8, degrees)], (50, 60))
        assert abs(found.sum() - np.pi * 20 * 8) < 12
    assert np.array_equal(
        inside([ellipse(30, 25, 20, 8, 90)], (50, 60)), inside([ellipse(30, 25, 8, 20)], (50, 60))
    )  # fmt: skip


def test_a_mask_that_reaches_out_of_its_image():
    with pytest.raises(ValueError, match=r"x: a mask of \[4, 4\] pixels at row 8, column 0 reaches out of the"):
        Shapes("x", [Shape(0, mask=np.ones((4, 4), bool), origin=(8, 0))], 1).codes((10, 10))


def blobs(seed, size=(13, 17)):
    rng = np.random.default_rng(seed)
    return np.kron(rng.random((5, 6)) < 0.5, np.ones((3, 3))).astype(bool)[: size[0], : size[1]]


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths(seed):
    mask = blobs(seed) if seed else np.random.default_rng(9).random((13, 17)) < 0.5
    assert np.array_equal(alternating_runs(runs(mask), mask.size, "x").reshape(mask.shape), mask)
    assert np.array_equal(coco_mask({"size": list(mask.shape), "counts": runs(mask.T)}, "x"), mask)
    assert np.array_equal(label_studio_mask(brush(mask), mask.shape, "x"), mask)


def test_damaged_run_lengths():
    with pytest.raises(ValueError, match="x: the runs of a mask sum up to 5 pixels, it has 6: damaged"):
        alternating_runs([2, 3], 6, "x")
    data = brush(blobs(1))
    with pytest.raises(ValueError, match="x: a brush is cut short after 9 bytes"):
        label_studio_mask(data[:9], (13, 17), "x")
    with pytest.raises(ValueError, match=r"x: a brush holds 884 values of 8 bits, 96 bytes are wanted for \[4, 6\]"):
        label_studio_mask(data, (4, 6), "x")
