"""Signposts need both directions, as their docstring says; what they show can be read from the images."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.config import load_config
from psanet_tf.data.catalog import dataset_info
from psanet_tf.data.scene_files import write_scenes
from psanet_tf.data.signposts import (
    COLORS,
    DEGREES,
    FIELD_OF_VIEW,
    FIELDS,
    HEIGHT,
    PITCH,
    REACH,
    ROWS,
    WATERS,
    WIDTH,
    make_signpost_scene,
    plan_signposts,
)
from psanet_tf.models import PSANet

SEEN = range(10)
NAMES = dataset_info("signposts").class_names
CONFIGS = Path(__file__).parents[2] / "configs" / "signposts"
NETWORK = {"blocks": (1, 1, 1, 1), "width": 8, "input_shape": (HEIGHT, WIDTH, 3), "variant": "mmseg"}


@pytest.fixture(scope="module")
def scenes():
    return [make_signpost_scene(0, "training", index) for index in SEEN]


def discs_of(where):
    """bool [HEIGHT, WIDTH] of each disc of a column of them, by row."""
    rows = np.flatnonzero(where.any(1))
    for group in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if rows.size else []:
        disc = where.copy()
        disc[: group[0]] = disc[group[-1] + 1 :] = False
        yield disc


def row_of(disc):
    """0 for the uppermost of the rows."""
    return round(np.flatnonzero(disc.any(1)).mean() / PITCH) - 1


def hand_of(image, disc):
    """The direction of the dark pixels of a disc as seen from its middle, in degrees to the right and down."""
    rows, columns = np.nonzero(disc)
    dark = image[disc].max(1) < 60
    right, down = (axis[dark].mean() - axis.mean() for axis in (columns, rows))
    return math.degrees(math.atan2(down, right))


def color_of(image, disc):
    pixels = image[disc].astype(int)
    color = np.median(pixels[pixels.max(1) >= 60], axis=0)
    return int(np.argmin([abs(color - known).sum() for known in COLORS]))


def read_labels(scene):
    """{row: class name} of waters or fields, from the image, its sources, and where dials are."""
    image, named = scene.image, {}
    sources = {row_of(disc): disc for disc in discs_of(scene.sources)}
    assert sorted(sources) == list(range(ROWS))
    dials = scene.label == NAMES.index("dial")
    if dials.any():
        for dial in discs_of(dials):
            row = row_of(dial)
            named[row] = WATERS[color_of(image, sources[row + round(hand_of(image, dial) / DEGREES)])]
        return named
    for row, board in sources.items():
        angle = (180 - hand_of(image, board) + 180) % 360 - 180
        named[row + round(angle / DEGREES)] = FIELDS[color_of(image, board)]
    return named


def test_what_waters_and_fields_are_can_be_read_from_hands_and_colors(scenes):
    for scene in scenes:
        named = read_labels(scene)
        assert sorted(named) == list(range(ROWS))
        for target in discs_of(scene.targets):
            labels = {NAMES[value] for value in np.unique(scene.label[target])} - {"dial"}
            assert labels == {named[row_of(target)]}
        kinds = WATERS if scene.plan.is_shore else FIELDS
        assert [named[row] for row in range(ROWS)] == [kinds[kind] for kind in scene.plan.kinds]


def test_half_of_the_images_are_shores(scenes):
    assert [scene.plan.is_shore for scene in scenes] == [True, False] * (len(scenes) // 2)


def test_colors_change_nothing_but_the_discs_of_the_sources_and_the_labels_of_the_targets(scenes):
    for index, scene in zip(SEEN, scenes, strict=True):
        turned = dataclasses.replace(scene.plan, colors=tuple((color + 1) % len(COLORS) for color in scene.plan.colors))
        other = make_signpost_scene(0, "training", index, turned)
        assert np.array_equal(scene.image[~scene.sources], other.image[~other.sources])
        assert not np.array_equal(scene.image[scene.sources], other.image[other.sources])
        assert np.array_equal(scene.label[~scene.targets], other.label[~other.targets])
        changed = scene.targets & (scene.label != NAMES.index("dial"))
        assert (scene.label[changed] != other.label[changed]).all()


def test_a_field_looks_the_same_wherever_the_boards_point(scenes):
    scene = scenes[1]
    other = dataclasses.replace(scene.plan, hands=scene.plan.hands[::-1], colors=(2, 2, 0, 1))
    left = np.s_[:, : WIDTH // 2]
    assert np.array_equal(scene.image[left], make_signpost_scene(0, "training", 1, other).image[left])


def test_a_lamp_looks_the_same_wherever_the_dials_point(scenes):
    scene = scenes[0]
    other = dataclasses.replace(scene.plan, hands=tuple((hand + 2) % ROWS for hand in scene.plan.hands))
    right = np.s_[:, WIDTH // 2 :]
    assert np.array_equal(scene.image[right], make_signpost_scene(0, "training", 0, other).image[right])


def test_no_feature_sees_both_a_source_and_a_target_and_none_that_attention_takes_sees_two_rows(scenes):
    # The stack of tests/data/test_scenes.py with half of the dilation in layer3 and layer4.
    field, step = 1, 1
    stem = [(3, 2, 1), (3, 1, 1), (3, 1, 1), (3, 2, 1)]
    for kernel, stride, dilation in [*stem, (3, 1, 1), (3, 2, 1), (3, 1, 1), (3, 1, 2)]:
        field += (kernel - 1) * dilation * step
        step *= stride
    assert field == FIELD_OF_VIEW
    assert step * load_config(CONFIGS / "psanet.yaml").model.shrink_factor == PITCH
    for scene in scenes:
        # JPEG's blocks of 8 pixels spread what is in them.
        source = np.flatnonzero(scene.sources.any(0)).min() // 8 * 8
        target = np.flatnonzero(scene.targets.any(0)).max() // 8 * 8 + 7
        assert source - target + 1 > FIELD_OF_VIEW
        for disc in [*discs_of(scene.sources), *discs_of(scene.label == NAMES.index("dial"))]:
            rows = np.unique(np.flatnonzero(disc.any(1)) // 8 * 8 + np.arange(8)[:, None])
            middles = PITCH * np.arange(ROWS + 2)
            assert [abs(rows - middle).min() <= FIELD_OF_VIEW // 2 for middle in middles].count(True) == 1


def test_configurations_differ_in_the_attention_module_only():
    configs = {path.stem: load_config(path).model_dump() for path in CONFIGS.glob("*.yaml")}
    assert sorted(configs) == ["collect", "distribute", "fcn", "psanet"]
    modules = {name: config.pop("model") for name, config in configs.items()}
    assert len({repr(config) for config in configs.values()}) == 1
    varying = {key for key in modules["fcn"] if len({repr(module[key]) for module in modules.values()}) > 1}
    assert varying == {"use_psa", "psa_type", "shrink_factor"}
    assert not modules["fcn"]["use_psa"]
    assert configs["fcn"]["data"]["crop_size"] == (HEIGHT, WIDTH)


def test_the_fcn_cannot_see_sources_from_targets_and_psanet_can(scenes):
    scene = scenes[1]
    image = tf.constant(scene.image[None], tf.float32) / 64 - 2
    for use_psa in (False, True):
        model = PSANet(len(NAMES), use_psa=use_psa, align_corners=True, shrink_factor=6, **NETWORK).inference()
        with tf.GradientTape() as tape:
            tape.watch(image)
            on_targets = tf.reduce_sum(tf.boolean_mask(model(image, training=False)[0], scene.targets) ** 2)
        gradient = tape.gradient(on_targets, image)[0].numpy()
        assert (gradient[scene.targets] != 0).any()
        assert bool((gradient[scene.sources] != 0).any()) == use_psa


def test_kinds_are_balanced_wherever_targets_and_their_sources_are():
    counts = {is_shore: np.zeros((ROWS, ROWS, len(COLORS))) for is_shore in (True, False)}
    for index in range(3000):
        plan = plan_signposts(0, "training", index)
        for row, kind in enumerate(plan.kinds):
            source = plan.hands[row] if plan.is_shore else plan.hands.index(row)
            counts[plan.is_shore][row, source, kind] += 1
    near = abs(np.subtract.outer(np.arange(ROWS), np.arange(ROWS))) <= REACH
    for of_kinds in counts.values():
        total = of_kinds.sum(2)
        assert total.sum() == 1500 * ROWS
        assert total[near].min() > 100
        assert not total[~near].any()
        # Within 5 deviations of a third, in each pair of rows and in all.
        assert (abs(of_kinds - total[..., None] / 3) <= 5 * np.sqrt(total[..., None] * 2 / 9)).all()
        assert (abs(of_kinds.sum((0, 1)) - total.sum() / 3) < 5 * np.sqrt(total.sum() * 2 / 9)).all()


def test_every_field_has_one_board():
    for index in range(1, 200, 2):
        plan = plan_signposts(1, "validation", index)
        assert sorted(plan.hands) == list(range(ROWS))


def test_no_image_is_in_both_splits_and_each_is_a_function_of_its_number(tmp_path, scenes):
    one = write_scenes(tmp_path / "one", train=6, validation=4, kind="signposts")
    two = write_scenes(tmp_path / "two", train=2, validation=1, kind="signposts")
    images = [path.read_bytes() for path in one.glob("images/*/*.jpg")]
    assert len(images) == len(set(images)) == 10
    files = [path.relative_to(two) for path in two.rglob("*.*")]
    assert len(files) == 6
    assert all((one / path).read_bytes() == (two / path).read_bytes() for path in files)
    other = make_signpost_scene(1, "training", 0)
    assert not np.array_equal(other.image, scenes[0].image)
    plans = {split: [plan_signposts(0, split, index) for index in range(100)] for split in ("training", "validation")}
    assert plans["training"] != plans["validation"]


def test_all_classes_occur(scenes):
    assert set(np.unique([scene.label for scene in scenes])) == set(range(len(NAMES)))


def test_impossible_arguments_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="kind: must be scenes or signposts, got 'harbours'"):
        write_scenes(tmp_path / "data", kind="harbours")
    with pytest.raises(ValueError, match="size: signposts are 241 x 145 pixels, leave it out; got 200"):
        write_scenes(tmp_path / "data", kind="signposts", size=200)
    with pytest.raises(ValueError, match="seed: must not be negative, got -1"):
        write_scenes(tmp_path / "data", kind="signposts", seed=-1)
    with pytest.raises(ValueError, match="seed: must not be negative, got -1"):
        make_signpost_scene(-1, "training", 0)
    assert not list(tmp_path.iterdir())
