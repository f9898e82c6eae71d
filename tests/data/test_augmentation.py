"""Augmentation against the original's chain and against a slow reference."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.config.data import AugmentationSection
from psanet_tf.data.augmentation import apply_augmentation, draw_augmentation
from psanet_tf.data.normalization import MEAN

FILL = (10.0, 20.0, 30.0)


@pytest.fixture(scope="module")
def example():
    """Smooth enough that a small displacement is a small difference."""
    rows, columns = np.mgrid[:43, :57]
    waves = [np.sin(rows / 5 + columns / 9), np.cos(rows / 7 - columns / 6), np.sin(rows * columns / 300)]
    image = (127 + 100 * np.stack(waves, -1)).astype(np.uint8)
    label = ((rows // 8) * 3 + columns // 11).astype(np.uint8)
    return image, label


def apply(image, label, **changes):
    arguments = {
        "scale": 1.0,
        "angle_degrees": 0.0,
        "blur": False,
        "flip": False,
        "offset_yx": (0, 0),
        "crop_size": label.shape,
        "fill": FILL,
        "ignore_label": 255,
    }
    crop, crop_label = apply_augmentation(image, label, **(arguments | changes))
    return crop.numpy(), crop_label.numpy()


@functools.cache
def reference_frame(image_bytes, label_bytes, size, scale, angle_degrees):
    """The image and its labels, scaled and rotated: what blurring, mirroring and cutting begin with."""
    image = np.frombuffer(image_bytes, np.uint8).reshape(*size, 3)
    label = np.frombuffer(label_bytes, np.uint8).reshape(size)
    height, width = [round(scale * length) for length in size]
    cosine, sine = np.cos(np.radians(angle_degrees)), np.sin(np.radians(angle_degrees))
    frame = np.empty((height, width, 3))
    frame_label = np.empty((height, width), np.uint8)
    for row in range(height):
        for column in range(width):
            # Turned back about the centre, counter-clockwise on the screen being positive.
            right, down = column - width / 2, row - height / 2
            x = (width / 2 + cosine * right - sine * down + 0.5) / scale - 0.5
            y = (height / 2 + sine * right + cosine * down + 0.5) / scale - 0.5
            frame[row, column] = _bilinear(image, y, x, outside=FILL if angle_degrees else None)
            nearest = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
            inside = all(0 <= place < size for place, size in zip(nearest, label.shape, strict=True))
            frame_label[row, column] = label[nearest] if inside else 255
    return frame, frame_label


def reference(image, label, scale, angle_degrees, blur, flip, offset_yx, crop_size):
    """The same, pixel by pixel in float64, the image scaled and rotated as a whole before it is cut."""
    frame, frame_label = reference_frame(image.tobytes(), label.tobytes(), label.shape, scale, angle_degrees)
    height, width = frame_label.shape
    if blur:
        padded = np.pad(frame, ((2, 2), (2, 2), (0, 0)), "reflect")
        kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
        frame = sum(
            kernel[down, right] * padded[down : down + height, right : right + width]
            for down in range(5)
            for right in range(5)
        )
    if flip:
        frame, frame_label = frame[:, ::-1], frame_label[:, ::-1]
    missing = [max(crop - size, 0) for crop, size in zip(crop_size, (height, width), strict=True)]
    around = [(size // 2, size - size // 2) for size in missing]
    padded = np.stack([np.pad(frame[..., c], around, constant_values=FILL[c]) for c in range(3)], -1)
    padded_label = np.pad(frame_label, around, constant_values=255)
    part = tuple(slice(first, first + size) for first, size in zip(offset_yx, crop_size, strict=True))
    return padded[part], padded_label[part]


def _bilinear(image, y, x, outside):
    def pixel(row, column):
        inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
        if not inside and outside is not None:
            return np.array(outside)
        return image[np.clip(row, 0, image.shape[0] - 1), np.clip(column, 0, image.shape[1] - 1)].astype(float)

    row, column = int(np.floor(y)), int(np.floor(x))
    down, right = y - row, x - column
    top = (1 - right) * pixel(row, column) + right * pixel(row, column + 1)
    bottom = (1 - right) * pixel(row + 1, column) + right * pixel(row + 1, column + 1)
    return (1 - down) * top + down * bottom


# Mean difference of the pixels, and share of labels that agree: two resamplings there, one here, and half a pixel
# between the ways in which labels are scaled.
AGREEMENT = (
    (0.2451, 0.94294),
    (1.7088, 0.95715),
    (0.2483, 0.97275),
    (0.3355, 0.97145),
    (0.2342, 0.94838),
    (0.8271, 0.96134),
)


def test_agrees_with_the_original_chain(golden):
    arrays, meta = golden("augment")
    assert len(meta["cases"]) == len(AGREEMENT)
    for index, case in enumerate(meta["cases"]):
        image, label = apply_augmentation(
            arrays["image"],
            arrays["label"],
            scale=case["scale"],
            angle_degrees=case["angle_degrees"],
            blur=case["blur"],
            flip=case["flip"],
            offset_yx=case["offset_yx"],
            crop_size=tuple(case["crop"]),
            fill=meta["fill_rgb"],
            ignore_label=meta["ignore"],
        )
        difference, agreement = AGREEMENT[index]
        assert abs(image.numpy() - arrays[f"image{index}"].astype(float)).mean() < difference + 0.001
        # A twentieth of a per cent is ten pixels: what arithmetic on another machine may round the other way.
        assert (label.numpy() == arrays[f"label{index}"]).mean() > agreement - 0.0005


@pytest.mark.parametrize("angle", [0.0, -7.0, 10.0])
@pytest.mark.parametrize(("scale", "offset"), [(0.6, (0, 0)), (1.0, (3, 8)), (1.7, (20, 41))])
@pytest.mark.parametrize(("blur", "flip"), [(False, True), (True, False), (True, True)])
def test_agrees_with_the_slow_reference(example, scale, offset, angle, blur, flip):
    parameters = {"scale": scale, "angle_degrees": angle, "blur": blur, "flip": flip, "offset_yx": offset}
    image, label = apply(*example, **parameters, crop_size=(33, 41))
    expected_image, expected_label = reference(*example, **parameters, crop_size=(33, 41))
    # Rotated labels on a border between two may fall to either side.
    assert (label == expected_label).mean() > (0.995 if angle else 0.9999)
    assert abs(image - expected_image).max() < 0.05


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (3, 3)])
@pytest.mark.parametrize("angle", [0.0, 10.0])
def test_images_of_a_few_pixels_are_blurred_as_by_the_slow_reference(size, angle):
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 3, size, np.uint8)
    for scale in (1.0, 1.6):
        arguments = {"scale": scale, "angle_degrees": angle, "blur": True, "flip": True, "offset_yx": (0, 0)}
        crop, _ = apply(image, label, **arguments, crop_size=(9, 9))
        expected, _ = reference(image, label, **arguments, crop_size=(9, 9))
        assert abs(crop - expected).max() < 0.05


def test_something_is_left_of_the_smallest_image():
    drawn = draws(AugmentationSection(scale=(0.5, 0.6)), count=50, image_size=(1, 3), crop_size=(9, 9))
    assert (np.round(drawn["scale"] * 1) == 1).all()
    drawn = draws(AugmentationSection(scale=(0.1, 0.2)), count=50, image_size=(3, 40), crop_size=(9, 9))
    assert (np.round(drawn["scale"] * np.float32(3)) == 1).all()


def test_nothing_to_do_is_the_identity(example):
    image, label = apply(*example)
    assert abs(image - example[0]).max() < 1e-3
    assert np.array_equal(label, example[1])


def test_none_is_no_rotation(example):
    first, second = [apply(*example, scale=1.3, angle_degrees=angle)[0] for angle in (None, 0.0)]
    assert np.array_equal(first, second)


def test_mirroring_twice_is_the_identity(example):
    image, label = apply(*example, flip=True)
    assert abs(image - example[0][:, ::-1]).max() < 1e-3
    assert np.array_equal(label, example[1][:, ::-1])


def test_a_small_image_is_padded_with_the_fill_and_the_ignored_label(example):
    image, label = apply(*example, crop_size=(50, 70))
    assert np.array_equal(label[3:46, 6:63], example[1])
    outside = np.ones((50, 70), bool)
    outside[3:46, 6:63] = False
    assert (label[outside] == 255).all()
    assert (image[outside] == FILL).all()


def test_crops_are_parts_of_the_whole(example):
    """Only the kept pixels are computed, and they do not depend on where the crop lies."""
    for angle in (0.0, 8.0):
        common = {"scale": 1.4, "angle_degrees": angle, "blur": True, "flip": True}
        whole, whole_label = apply(*example, **common, crop_size=(60, 80))
        part, part_label = apply(*example, **common, crop_size=(31, 42), offset_yx=(17, 25))
        assert abs(part - whole[17:48, 25:67]).max() < 0.02
        assert (part_label == whole_label[17:48, 25:67]).mean() > 0.995


def test_labels_of_rotated_images_are_those_of_the_image_or_ignored(example):
    _, label = apply(*example, angle_degrees=45.0, scale=2.0, crop_size=(81, 105))
    assert set(np.unique(label)) <= set(np.unique(example[1])) | {255}


def test_runs_in_a_graph_with_unknown_sizes(example):
    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None, None], tf.uint8)])
    def augmented(image, label):
        parameters = draw_augmentation([1, 2], tf.shape(label), (33, 41), AugmentationSection())
        return apply_augmentation(image, label, **parameters._asdict(), crop_size=(33, 41), fill=MEAN, ignore_label=255)

    image, label = augmented(*example)
    assert image.shape == (33, 41, 3)
    assert label.shape == (33, 41)
    parameters = draw_augmentation([1, 2], example[1].shape, (33, 41), AugmentationSection())
    eager, _ = apply_augmentation(*example, **parameters._asdict(), crop_size=(33, 41), fill=MEAN, ignore_label=255)
    assert abs(image - eager).numpy().max() < 1e-3


@pytest.mark.parametrize(
    "changes", [{"offset_yx": (12, 0), "crop_size": (33, 41)}, {"offset_yx": (-1, 0)}, {"scale": 0.001}]
)
def test_impossible_parameters_are_refused(example, changes):
    with pytest.raises(tf.errors.InvalidArgumentError, match="one size, a scale must leave pixels, the crop must fit"):
        apply(*example, **changes)


def test_image_and_label_must_be_of_one_size(example):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image and label must be of one size"):
        apply(example[0], example[1][1:])


def draws(section, count=400, image_size=(300, 200), crop_size=(161, 161)):
    draw = tf.function(lambda index: draw_augmentation(tf.stack([3, index]), image_size, crop_size, section))
    values = [draw(tf.constant(index)) for index in range(count)]
    names = [name for name in values[0]._fields if name != "color_jitter"]
    return {name: np.array([getattr(value, name).numpy() for value in values]) for name in names}


def test_draws_follow_the_section():
    drawn = draws(AugmentationSection(rotate_probability=0.25, blur_probability=0.75))
    assert drawn["scale"].min() > 0.5
    assert drawn["scale"].max() < 2
    assert abs(drawn["scale"].mean() - 1.25) < 0.08
    assert abs((drawn["angle_degrees"] != 0).mean() - 0.25) < 0.08
    turned = drawn["angle_degrees"][drawn["angle_degrees"] != 0]
    assert abs(turned).max() <= 10
    assert abs(turned.mean()) < 2
    assert abs(drawn["blur"].mean() - 0.75) < 0.08
    assert abs(drawn["flip"].mean() - 0.5) < 0.08
    room = np.maximum(np.round(drawn["scale"][:, None] * [300, 200]) - 161, 0)
    assert (drawn["offset_yx"] >= 0).all()
    assert (drawn["offset_yx"] <= room).all()
    relative = drawn["offset_yx"][room > 20] / room[room > 20]
    assert abs(relative.mean() - 0.5) < 0.05


def test_probabilities_of_zero_and_one_are_certain():
    never = AugmentationSection(scale=(1.0, 1.0), rotate_probability=0.0, blur_probability=0.0, flip_probability=0.0)
    drawn = draws(never, count=20)
    assert (drawn["scale"] == 1).all()
    assert not (drawn["angle_degrees"].any() or drawn["blur"].any() or drawn["flip"].any())
    always = AugmentationSection(rotate_probability=1.0, blur_probability=1.0, flip_probability=1.0)
    drawn = draws(always, count=20)
    assert drawn["angle_degrees"].all()
    assert drawn["blur"].all()
    assert drawn["flip"].all()


def test_the_same_seed_draws_the_same():
    first, again, other = [
        draw_augmentation(seed, (300, 200), (161, 161), AugmentationSection()) for seed in ([1, 2], [1, 2], [1, 3])
    ]
    assert float(first.scale) == float(again.scale)
    assert float(first.scale) != float(other.scale)


def test_crops_of_mostly_one_class_are_drawn_again():
    """The first of eleven places at which no class has too large a share, else the last, as MMSegmentation's."""
    rng = np.random.default_rng(0)
    classes = np.where(rng.random((12, 16)) < 0.75, 3, rng.choice([1, 2, 255], (12, 16))).astype(np.uint8)
    classes = np.kron(classes, np.ones((5, 5), np.uint8))
    image, size = np.zeros((*classes.shape, 1), np.uint8), (21, 25)
    plain = AugmentationSection(rotate_degrees=40.0, blur_probability=0.0)
    mixed = plain.model_copy(update={"cat_max_ratio": 0.7})

    @functools.partial(tf.function, autograph=False)
    def draw(index):
        seed = tf.stack([7, index])
        crop_seed = tf.random.experimental.stateless_fold_in(seed, 1, alg="philox")
        draws = tf.random.stateless_uniform([10, 2], crop_seed, alg="philox")
        one, two = (draw_augmentation(seed, classes.shape, size, section, classes) for section in (plain, mixed))
        return one._asdict(), two.offset_yx, draws

    @functools.partial(tf.function, autograph=False, reduce_retracing=True)
    def crop(parameters, offset):
        parameters = {**parameters, "offset_yx": offset}
        return apply_augmentation(image, classes, **parameters, crop_size=size, fill=(0.0,), ignore_label=255)[1]

    def is_mixed(parameters, place):
        counts = np.bincount(crop(parameters, tf.constant(place, tf.int32)).numpy().ravel(), minlength=256)[:255]
        return np.sum(counts > 0) > 1 and counts.max() < 0.7 * counts.sum()

    tries = []
    for index in range(15):
        parameters, redrawn, draws = draw(tf.constant(index))
        room = np.round(parameters["scale"].numpy() * np.float32(classes.shape)).astype(int) - size
        room = np.maximum(room, 0)
        later = np.minimum((draws.numpy() * np.float32(room + 1)).astype(int), room)
        places = [parameters["offset_yx"].numpy(), *later]
        tries.append(next((number for number, place in enumerate(places) if is_mixed(parameters, place)), 10))
        assert redrawn.numpy().tolist() == places[tries[-1]].tolist()
    assert 0 in tries and 10 in tries and set(tries) & set(range(1, 10)), tries


def test_values_with_a_table_are_as_good_as_classes():
    """Several values of a class, values of none; what is drawn depends on the classes alone."""
    rng = np.random.default_rng(1)
    values = np.kron(rng.choice([7, 8, 0, 26, 90], (12, 16), p=[0.4, 0.4, 0.1, 0.05, 0.05]), np.ones((5, 5), int))
    table = np.full(256, 254, np.uint8)
    table[[7, 8, 0, 26, 90]] = 3, 3, 255, 1, 0
    section = AugmentationSection(cat_max_ratio=0.7)
    plain, moved = AugmentationSection(), 0
    for index in range(20):
        arguments = [index, 5], values.shape, (21, 25)
        found = draw_augmentation(*arguments, section, values.astype(np.uint8), table)
        expected = draw_augmentation(*arguments, section, table[values])
        tf.nest.map_structure(np.testing.assert_array_equal, found, expected)
        moved += not np.array_equal(found.offset_yx, draw_augmentation(*arguments, plain).offset_yx)
    assert moved > 3


def test_a_share_of_classes_needs_the_classes():
    with pytest.raises(ValueError, match="cat_max_ratio 0.5: classes are needed"):
        draw_augmentation([1, 2], (9, 9), (9, 9), AugmentationSection(cat_max_ratio=0.5))
