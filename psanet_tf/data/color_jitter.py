"""Random brightness, contrast, saturation and hue of photographs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from psanet_tf.config import ColorJitterSection

_GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601, to the digits that torchvision has
_LARGEST = 255.0
_KINDS = ("brightness", "contrast", "saturation", "hue")


class ColorJitter(NamedTuple):
    """What is done to the colours of one image.

    Attributes:
        order: int32 [n], which of brightness (0), contrast (1), saturation (2) and hue (3) come first, second, ...
        amounts: float32 [4], three factors (1 changes nothing), and a turn of the colour circle (0 changes nothing).
    """

    order: tf.Tensor
    amounts: tf.Tensor


def draw_color_jitter(seed: Sequence[int] | tf.Tensor, section: ColorJitterSection) -> ColorJitter:
    """Draws what is done to one image, as torchvision's `ColorJitter` does: each used change once, in random order.

    Args:
        seed: two integers; the same seed draws the same.
        section: `ColorJitterSection`.

    Returns:
        ColorJitter.
    """
    draws = tf.random.stateless_uniform(
        [4], tf.random.experimental.stateless_fold_in(seed, 0, alg="philox"), alg="philox"
    )
    ranges = [(max(0.0, 1 - strength), 1 + strength) for strength in (getattr(section, kind) for kind in _KINDS[:3])]
    lowest, highest = np.array([*ranges, (-section.hue, section.hue)], np.float32).T
    used = tf.constant([index for index, kind in enumerate(_KINDS) if getattr(section, kind)], tf.int32)
    order_seed = tf.random.experimental.stateless_fold_in(seed, 1, alg="philox")
    order = tf.random.experimental.stateless_shuffle(used, order_seed, alg="philox")
    return ColorJitter(order, lowest + (highest - lowest) * draws)


def jitter_colors(pixels: tf.Tensor, jitter: ColorJitter) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue.

    Each is computed as torchvision's functions `adjust_brightness`, `adjust_contrast`, `adjust_saturation` and
    `adjust_hue` do on images of floating point, whose values stay from 0 to the largest: a blend with black, with the
    mean of the grey image, with the grey image; and a shift of the hue in HSV.

    Args:
        pixels: float32 [h, w, 3], RGB, 0 to 255.
        jitter: ColorJitter.

    Returns:
        Tensor like `pixels`.
    """
    changes = [_brightness, _contrast, _saturation, _hue]

    def next_change(index, pixels):
        kind = jitter.order[index]
        amount = jitter.amounts[kind]
        branches = [lambda change=change: change(pixels, amount) for change in changes]
        return index + 1, tf.ensure_shape(tf.switch_case(kind, branches), pixels.shape)

    start = (tf.constant(0), tf.ensure_shape(pixels, [None, None, 3]))
    return tf.while_loop(lambda index, _: index < tf.size(jitter.order), next_change, start)[1]


def _brightness(pixels, factor):
    return _in_range(pixels * factor)


def _contrast(pixels, factor):
    # The grey image's mean is the grey of the mean.
    mean = tf.reduce_sum(tf.reduce_mean(pixels, axis=[0, 1]) * _GREY)
    return _in_range(factor * pixels + (1 - factor) * mean)


def _saturation(pixels, factor):
    # As a product of matrices: to add a grey image to three channels takes TensorFlow several times as long.
    matrix = factor * tf.eye(3) + (1 - factor) * tf.tile(tf.constant(_GREY)[:, None], [1, 3])
    return _in_range(tf.reshape(tf.matmul(tf.reshape(pixels, [-1, 3]), matrix), tf.shape(pixels)))


def _hue(pixels, turn):
    return _in_range(tf.image.adjust_hue(pixels, turn))


def _in_range(pixels):
    return tf.clip_by_value(pixels, 0.0, _LARGEST)
