"""The scenes need context, as their docstring says, and are the same for the same seed."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.data.catalog import dataset_info
from psanet_tf.data.scene_files import write_scenes
from psanet_tf.data.scenes import KINDS, LAMP_COLORS, MIN_DISTANCE, make_scene
from psanet_tf.models import PSANet

SEEN = range(12)


def receptive_field(layers):
    """Pixels that a stack of (kernel, stride, dilation) sees."""
    field, step = 1, 1
    for kernel, stride, dilation in layers:
        field += (kernel - 1) * dilation * step
        step *= stride
    return field


def test_the_receptive_field_of_the_small_fcn_ends_before_the_lamps():
    stem = [(3, 2, 1), (3, 1, 1), (3, 1, 1)]
    pool = (3, 2, 1)
    stages = [(3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 1, 4)]
    head = (3, 1, 1)
    layers = [*stem, pool, *stages, head]
    fields = [receptive_field(layers[:count]) for count in range(len(stem), len(layers) + 1)]
    assert fields == [11, 15, 23, 31, 63, 127, 143]
    # To either side of a feature, which is at most 7 pixels away from an output pixel that is interpolated from it.
    assert (fields[-1] - 1) // 2 + 7 < MIN_DISTANCE


@pytest.mark.parametrize("index", SEEN)
def test_lamps_are_far_from_all_waters(index):
    scene = make_scene(0, "training", index)
    water_columns = np.flatnonzero(scene.waters.any(0))
    lamp_columns = np.flatnonzero(scene.lamps.any(0))
    # Also after JPEG, whose blocks of 8 pixels spread a lamp's colour.
    lamp_columns = np.unique(np.concatenate([np.arange(c // 8 * 8, c // 8 * 8 + 8) for c in lamp_columns]))
    assert abs(water_columns[:, None] - lamp_columns).min() >= MIN_DISTANCE


def test_the_fcn_cannot_see_the_lamps_from_the_waters_and_psanet_can():
    scene = make_scene(0, "training", 0)
    lamps, waters = tf.constant(scene.lamps), tf.constant(scene.waters)
    for use_psa in (False, True):
        model = PSANet(10, blocks=(1, 1, 1, 1), width=4, input_shape=(161, 161, 3), use_psa=use_psa).inference()
        image = tf.constant(scene.image[None], tf.float32) / 255
        with tf.GradientTape() as tape:
            tape.watch(image)
            on_waters = tf.reduce_sum(tf.boolean_mask(model(image, training=False)[0], waters) ** 2)
        gradient = tape.gradient(on_waters, image)[0]
        assert tf.reduce_any(tf.boolean_mask(gradient, waters) != 0)
        assert bool(tf.reduce_any(tf.boolean_mask(gradient, lamps) != 0)) == use_psa


@pytest.mark.parametrize("index", SEEN)
def test_the_kinds_change_nothing_but_the_lamps_and_the_labels_of_the_waters(index):
    first, second = [make_scene(3, "validation", index, kinds=kinds) for kinds in ((0, 2), (3, 1))]
    assert np.array_equal(first.image[~first.lamps], second.image[~second.lamps])
    assert not np.array_equal(first.image[first.lamps], second.image[second.lamps])
    assert np.array_equal(first.label[~first.waters], second.label[~second.waters])
    assert (first.label[first.waters] != second.label[second.waters]).all()


@pytest.mark.parametrize("index", SEEN)
def test_a_water_is_what_the_lamp_level_with_it_tells(index):
    scene = make_scene(1, "training", index)
    names = dataset_info("scenes").class_names
    for half, kind in zip((np.s_[:100], np.s_[100:]), scene.kinds, strict=True):
        assert {names[label] for label in scene.label[half][scene.waters[half]]} == {KINDS[kind]}
        lamp = np.median(scene.image[half][scene.lamps[half]], axis=0)
        distances = [abs(lamp - color).sum() for color in LAMP_COLORS]
        assert int(np.argmin(distances)) == kind


def test_kinds_are_drawn_independently_of_each_other_and_of_the_side():
    counts = np.zeros((4, 4), int)
    left = np.zeros(4, int)
    for index in range(160):
        scene = make_scene(0, "training", index)
        counts[scene.kinds] += 1
        left[scene.kinds[0]] += scene.waters[:, :40].any()
    assert counts.min() >= 2
    assert counts.sum(1).min() > 20
    assert counts.sum(0).min() > 20
    assert (abs(left / counts.sum(1) - 0.5) < 0.25).all()


def test_scenes_are_those_of_the_published_tables():
    scene = make_scene(0, "training", 3)
    assert scene.kinds == (0, 0)
    labels = [[0, 0, 0, 0, 0], [2, 2, 2, 2, 2], [5, 3, 3, 6, 6], [2, 2, 2, 6, 2], [2, 3, 2, 2, 2]]
    assert scene.label[10::35, 10::35].tolist() == labels
    red = [[204, 121, 114, 118, 150], [93, 85, 78, 70, 77], [228, 49, 31, 40, 47], [70, 80, 59, 71, 85]]
    # Sines may differ in their last bits from one processor to another.
    np.testing.assert_allclose(scene.image[10:150:35, 10::35, 0], red, atol=1)


def test_same_seed_same_files_however_many(tmp_path):
    one = write_scenes(tmp_path / "one", train=3, validation=1, seed=7)
    two = write_scenes(str(tmp_path / "two"), train=2, validation=1, seed=7)
    other = write_scenes(tmp_path / "other", train=2, validation=1, seed=8)
    files = [path.relative_to(two) for path in two.rglob("*.*")]
    assert len(files) == 6
    for path in files:
        assert (one / path).read_bytes() == (two / path).read_bytes()
        assert (other / path).read_bytes() != (two / path).read_bytes()


def test_all_classes_occur_and_nothing_is_unlabelled():
    labels = np.stack([make_scene(0, "training", index).label for index in range(20)])
    assert set(np.unique(labels)) == set(range(10))


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("psanet_tf.data.scenes.make_scene", fail)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "data", train=1, validation=1)
    assert list(tmp_path.iterdir()) == []


def test_impossible_arguments_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="train: needs at least one image, got 0"):
        write_scenes(tmp_path / "data", train=0)
    with pytest.raises(ValueError, match="size.*at least 161, got 97"):
        write_scenes(tmp_path / "data", size=97)
    with pytest.raises(ValueError, match="seed: must not be negative"):
        write_scenes(tmp_path / "data", seed=-1)
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileExistsError, match="taken exists already"):
        write_scenes(tmp_path / "taken")
