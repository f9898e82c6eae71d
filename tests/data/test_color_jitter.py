"""Colour jitter against a slow reference of what torchvision computes."""

import colorsys
import itertools

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.config import AugmentationSection, ColorJitterSection, load_config
from psanet_tf.data.augmentation import apply_augmentation, draw_augmentation
from psanet_tf.data.color_jitter import ColorJitter, draw_color_jitter, jitter_colors
from psanet_tf.data.pipeline import training_dataset

STRONG = ColorJitterSection(brightness=0.4, contrast=0.5, saturation=0.6, hue=0.2)


def reference(pixels, order, amounts):
    """Pixel by pixel, from 0 to 1 as torchvision has floating-point images."""
    image = pixels.astype(np.float64) / 255
    for kind in order:
        amount, grey = amounts[kind], image @ [0.2989, 0.587, 0.114]
        if kind == 0:
            image = amount * image
        elif kind == 1:
            image = amount * image + (1 - amount) * grey.mean()
        elif kind == 2:
            image = amount * image + (1 - amount) * grey[..., None]
        else:
            image = image.copy()
            for place in np.ndindex(image.shape[:2]):
                hue, saturation, value = colorsys.rgb_to_hsv(*image[place])
                image[place] = colorsys.hsv_to_rgb((hue + amount) % 1, saturation, value)
        image = image.clip(0, 1)
    return 255 * image


@pytest.fixture
def pixels():
    return np.random.default_rng(0).uniform(0, 255, (5, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("amounts", [(1.4, 0.5, 1.6, 0.2), (0.7, 1.5, 0.4, -0.15)])
def test_every_order_equals_the_reference(pixels, amounts):
    change = tf.function(lambda order: jitter_colors(pixels, ColorJitter(order, tf.constant(amounts))), autograph=False)
    for order in [*itertools.permutations(range(4)), (2,), (3, 0)]:
        got = change(tf.constant(order)).numpy()
        np.testing.assert_allclose(got, reference(pixels, order, amounts), atol=0.02)


def test_equals_torchvision(pixels):
    functional = pytest.importorskip("torchvision.transforms.functional")
    torch = pytest.importorskip("torch")
    image = torch.tensor(pixels / 255).permute(2, 0, 1)
    names = ("brightness", "contrast", "saturation", "hue")
    for kind, amount in enumerate((1.4, 0.5, 1.6, 0.2)):
        amounts = tf.one_hot(kind, 4) * amount
        got = jitter_colors(tf.constant(pixels), ColorJitter(tf.constant([kind]), amounts)).numpy()
        expected = getattr(functional, f"adjust_{names[kind]}")(image, amount)
        np.testing.assert_allclose(got / 255, expected.permute(1, 2, 0).numpy(), atol=1e-4)


def test_draws_are_in_torchvisions_ranges_and_orders():
    draw = tf.function(lambda index: draw_color_jitter(tf.stack([5, index]), STRONG))
    drawn = [draw(tf.constant(index)) for index in range(300)]
    amounts = np.array([jitter.amounts.numpy() for jitter in drawn])
    lowest, highest = np.array([0.6, 0.5, 0.4, -0.2]), np.array([1.4, 1.5, 1.6, 0.2])
    assert (amounts >= lowest).all() and (amounts <= highest).all()
    assert (abs(amounts.mean(0) - (lowest + highest) / 2) < 0.1 * (highest - lowest)).all()
    orders = {tuple(jitter.order.numpy().tolist()) for jitter in drawn}
    assert orders == set(itertools.permutations(range(4)))
    # A factor never turns an image over, and what is not used is not computed.
    some = draw_color_jitter([1, 2], ColorJitterSection(contrast=3.0, hue=0.5))
    assert sorted(some.order.numpy().tolist()) == [1, 3]
    assert 0 <= some.amounts[1] <= 4


def test_augmentation_changes_colours_inside_the_image_alone(pixels):
    """And nothing else: scale, rotation, mirroring and place are drawn as without."""
    label = np.zeros((5, 6), np.uint8)
    plain, strong = AugmentationSection(), AugmentationSection(color_jitter=STRONG)
    one, two = (draw_augmentation([3, 4], (5, 6), (9, 11), section) for section in (plain, strong))
    assert one.color_jitter is None
    for name in ("scale", "angle_degrees", "blur", "flip", "offset_yx"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    unchanged = {"scale": 1.0, "angle_degrees": 0.0, "blur": False, "flip": True, "offset_yx": (0, 0)}
    common = {**unchanged, "crop_size": (9, 11), "fill": (10.0, 20.0, 30.0), "ignore_label": 255}
    image, labels = apply_augmentation(pixels, label, **common, color_jitter=two.color_jitter)
    inside = labels.numpy() == 0
    assert (image.numpy()[~inside] == (10.0, 20.0, 30.0)).all()
    expected = reference(pixels[:, ::-1], two.color_jitter.order.numpy(), two.color_jitter.amounts.numpy())
    np.testing.assert_allclose(image.numpy()[inside].reshape(5, 6, 3), expected, atol=0.02)


def test_a_pipeline_that_resumes_gives_the_same_batch(scenes_config):
    options = {"rotate_probability": 0.0, "blur_probability": 0.0}
    options |= {"color_jitter": STRONG.model_dump(), "cat_max_ratio": 0.6}
    config = scenes_config(augmentation=options)
    first, *_, third = training_dataset(config, 4).take(3).as_numpy_iterator()
    (resumed,) = training_dataset(config, 4, start_epoch=1).take(1).as_numpy_iterator()  # 11 images: two steps an epoch
    tf.nest.map_structure(np.testing.assert_array_equal, third, resumed)
    assert not np.array_equal(first[0], third[0])


def test_colours_of_what_is_no_photograph(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("data: {root: here, channels: 4, mean: [1, 1, 1, 1], std: [1, 1, 1, 1]}")
    with pytest.raises(
        ValueError, match=r"color_jitter is for photographs, .* got channels: 4, dtype: uint8; leave it out"
    ):
        load_config(path, ["data.augmentation.color_jitter={hue: 0.1}"])
