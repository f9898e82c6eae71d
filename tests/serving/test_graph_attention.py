"""The `attention` signature against `psanet_tf.attention_maps`."""

import numpy as np
import pytest

from psanet_tf import attention_maps
from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.errors import ServingError


def test_maps_are_those_of_the_library_call(network, servable, ask_attention):
    images = [made_image((70, 91)), made_image((33, 20), seed=1), made_image((25, 33), seed=2)]
    points = [[(0, 0), (90, 69)], [(10, 11), (19, 32)], [(5, 20), (17.5, 3)]]
    answer = ask_attention(servable, images, points)
    for index, (image, pair) in enumerate(zip(images, points, strict=True)):
        expected = attention_maps(network, image, pair)
        np.testing.assert_allclose(answer["collect"][index], expected.collect, atol=1e-5)
        np.testing.assert_allclose(answer["distribute"][index], expected.distribute, atol=1e-5)
        place = expected.placement
        top, left, bottom, right = answer["image_box"][index]
        step = [(size - 1) / (cells - 1) for size, cells in zip(place.input_size, place.map_size, strict=True)]
        assert top * step[0] + 0.5 == pytest.approx(place.offset[0], abs=1e-3)
        assert left * step[1] + 0.5 == pytest.approx(place.offset[1], abs=1e-3)
        assert (bottom - top) * step[0] == pytest.approx(place.resized_size[0], abs=1e-3)
        assert (right - left) * step[1] == pytest.approx(place.resized_size[1], abs=1e-3)


@pytest.mark.parametrize("point", [(-1, 3), (20, 3), (3, 33), (float("nan"), 1)])
def test_points_off_the_image_are_refused(servable, ask_attention, point):
    with pytest.raises(ServingError, match=r"points\[0\] must be x, y from 0 to below .*\[20 33\]") as caught:
        ask_attention(servable, [made_image((33, 20))], [[(1, 1), point]])
    assert caught.value.code == "INVALID_ARGUMENT"


def test_every_image_needs_points(servable, ask_attention):
    with pytest.raises(ServingError, match="points must have a list of points for each"):
        ask_attention(servable, [made_image((33, 20))] * 2, [[(1, 1)]])
