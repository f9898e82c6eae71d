"""The `attention` signature against `psanet_tf.attention_maps`."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import attention_maps
from psanet_tf.evaluation.whole_picture import any_size
from psanet_tf.serving.errors import ServingError
from psanet_tf.serving.export import export_saved_model
from psanet_tf.serving.servable import Servable
from psanet_tf.serving.verification import made_picture


def ask(servable, pictures, points):
    data = np.array([tf.io.encode_png(picture).numpy() for picture in pictures], object)
    return servable.run("attention", {"image_bytes": data, "points": np.asarray(points, np.float32)})


def test_maps_are_those_of_the_library_call(network, servable):
    pictures = [made_picture((70, 91)), made_picture((33, 20), seed=1), made_picture((25, 33), seed=2)]
    points = [[(0, 0), (90, 69)], [(10, 11), (19, 32)], [(5, 20), (17.5, 3)]]
    answer = ask(servable, pictures, points)
    for index, (picture, pair) in enumerate(zip(pictures, points, strict=True)):
        expected = attention_maps(network, picture, pair)
        np.testing.assert_allclose(answer["collect"][index], expected.collect, atol=1e-5)
        np.testing.assert_allclose(answer["distribute"][index], expected.distribute, atol=1e-5)
        place = expected.placement
        top, left, bottom, right = answer["picture_box"][index]
        step = [(size - 1) / (cells - 1) for size, cells in zip(place.input_size, place.map_size, strict=True)]
        assert top * step[0] + 0.5 == pytest.approx(place.offset[0], abs=1e-3)
        assert left * step[1] + 0.5 == pytest.approx(place.offset[1], abs=1e-3)
        assert (bottom - top) * step[0] == pytest.approx(place.resized_size[0], abs=1e-3)
        assert (right - left) * step[1] == pytest.approx(place.resized_size[1], abs=1e-3)


def test_networks_with_one_direction_or_none(make_network, classes, evaluate, tmp_path):
    path = export_saved_model(
        make_network(psa_type="distribute"), tmp_path / "a", classes, evaluate, warm_up=False
    ).path
    answer = ask(Servable(path, 1), [made_picture((33, 33))], [[(3, 4)]])
    assert sorted(answer) == ["distribute", "picture_box"]
    path = export_saved_model(make_network(use_psa=False), tmp_path / "b", classes, evaluate, warm_up=False).path
    assert "attention" not in Servable(path, 1).signatures


def test_a_network_of_any_size_sees_the_picture_at_its_own(network, classes, evaluate, tmp_path):
    path = export_saved_model(network, tmp_path / "m", classes, evaluate, whole=True, warm_up=False).path
    picture, points = made_picture((50, 61)), [(4, 40), (60, 0)]
    expected = attention_maps(any_size(network), picture, points)
    answer = ask(Servable(path, 1), [picture], [points])
    assert answer["collect"].shape == (1, 2, *expected.placement.map_size)
    np.testing.assert_allclose(answer["collect"][0], expected.collect, atol=1e-5)


@pytest.mark.parametrize("point", [(-1, 3), (20, 3), (3, 33), (float("nan"), 1)])
def test_points_off_the_picture_are_refused(servable, point):
    with pytest.raises(ServingError, match=r"points\[0\] must be x, y from 0 to below .*\[20 33\]") as caught:
        ask(servable, [made_picture((33, 20))], [[(1, 1), point]])
    assert caught.value.code == "INVALID_ARGUMENT"


def test_every_picture_needs_points(servable):
    with pytest.raises(ServingError, match="points must have a list of points for each"):
        ask(servable, [made_picture((33, 20))] * 2, [[(1, 1)]])
