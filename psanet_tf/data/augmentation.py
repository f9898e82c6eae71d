"""Random augmentation of an image with its labels: parameters are drawn first, then applied.

The chain of the paper's public implementation: scale, rotate, blur, mirror, crop. Scaling and rotation are one
resampling here, of the pixels that the crop keeps and no others. On demand, crops of mostly one class are drawn again
before that, and colours are changed after it. All of it is TensorFlow operations without state, so it runs in a tf.data
pipeline on any number of threads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from psanet_tf.config import AugmentationSection
from psanet_tf.data.blurring import warped_and_blurred
from psanet_tf.data.catalog import IGNORE_LABEL
from psanet_tf.data.channels import per_channel
from psanet_tf.data.color_jitter import ColorJitter, draw_color_jitter, jitter_colors
from psanet_tf.data.resampling import Warp, cond, crop_window, frame_size

_CROP_STREAM, _JITTER_STREAM = 1, 2
_CROP_TRIES = 10


class AugmentationParameters(NamedTuple):
    """What is done to one image; `_asdict()` gives the keyword arguments of `apply_augmentation`.

    Attributes:
        scale: float32 scalar, factor on both sides.
        angle_degrees: float32 scalar, rotation, positive counter-clockwise; 0 for none.
        blur: bool scalar, whether the 5x5 Gaussian filter is applied.
        flip: bool scalar, whether left and right are exchanged.
        offset_yx: int32 [2], row and column where the crop starts, after mirroring and padding.
        color_jitter: ColorJitter, or None for none.
    """

    scale: tf.Tensor
    angle_degrees: tf.Tensor
    blur: tf.Tensor
    flip: tf.Tensor
    offset_yx: tf.Tensor
    color_jitter: ColorJitter | None = None


def draw_augmentation(
    seed: Sequence[int] | tf.Tensor,
    image_size: Sequence[int] | tf.Tensor,
    crop_size: Sequence[int],
    augmentation: AugmentationSection,
    classes: tf.Tensor | None = None,
    class_table: np.ndarray | None = None,
) -> AugmentationParameters:
    """Draws the parameters for one image.

    Where `cat_max_ratio` is below 1, the place of the crop is drawn again while its labelled pixels are of a single
    class, or one class has that share of them or more; after 10 times the last one is taken, whatever it holds
    (as MMSegmentation's `RandomCrop`).

    Args:
        seed: two integers; the same seed draws the same parameters.
        image_size: rows and columns of the image.
        crop_size: rows and columns of the crop.
        augmentation: `AugmentationSection`, the ranges and probabilities.
        classes: uint8 [H, W], train ids, 255 where there is none; needed where `cat_max_ratio` is below 1.
        class_table: uint8 [256], the train id of each value in `classes`, which then are values of a label file; one
            of them at least is 255.

    Returns:
        AugmentationParameters.

    Raises:
        ValueError: `classes` is missing.

    Example:
        >>> parameters = draw_augmentation([0, 1], image.shape[:2], (465, 465), AugmentationSection())
        >>> crop, crop_label = apply_augmentation(
        ...     image, label, **parameters._asdict(), crop_size=(465, 465), fill=MEAN, ignore_label=255
        ... )
    """
    draws = tf.random.stateless_uniform([7], seed, alg="philox")
    smallest, largest = augmentation.scale
    # At least one pixel is left of the smallest image.
    least = 1 / tf.cast(tf.reduce_min(image_size), tf.float32)
    scale = tf.maximum(smallest + (largest - smallest) * draws[0], least)
    rotated = _happens(draws[1], augmentation.rotate_probability)
    angle = (2 * draws[2] - 1) * augmentation.rotate_degrees
    room = tf.maximum(frame_size(image_size, scale) - tf.constant(crop_size, tf.int32), 0)
    drawn = AugmentationParameters(
        scale=scale,
        angle_degrees=cond(rotated, lambda: angle, lambda: tf.constant(0.0)),
        blur=_happens(draws[3], augmentation.blur_probability),
        flip=_happens(draws[4], augmentation.flip_probability),
        offset_yx=_place(draws[5:7], room),
    )
    # What came later has seeds of its own, so that the draws above stay what they were.
    if augmentation.cat_max_ratio < 1:
        if classes is None:
            raise ValueError(
                f"cat_max_ratio {augmentation.cat_max_ratio}: classes are needed to draw a crop of several"
            )
        crop_seed = tf.random.experimental.stateless_fold_in(seed, _CROP_STREAM, alg="philox")
        labels = tf.convert_to_tensor(classes), class_table
        offset = _mixed_crop(crop_seed, drawn, room, *labels, crop_size, augmentation.cat_max_ratio)
        drawn = drawn._replace(offset_yx=offset)
    if augmentation.color_jitter.is_used:
        jitter_seed = tf.random.experimental.stateless_fold_in(seed, _JITTER_STREAM, alg="philox")
        drawn = drawn._replace(color_jitter=draw_color_jitter(jitter_seed, augmentation.color_jitter))
    return drawn


def apply_augmentation(
    image: np.ndarray | tf.Tensor,
    label: np.ndarray | tf.Tensor,
    *,
    scale: float | tf.Tensor,
    angle_degrees: float | tf.Tensor | None,
    blur: bool | tf.Tensor,
    flip: bool | tf.Tensor,
    offset_yx: Sequence[int] | tf.Tensor,
    crop_size: Sequence[int],
    fill: Sequence[float] | np.ndarray | tf.Tensor,
    ignore_label: int,
    color_jitter: ColorJitter | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scales, rotates, blurs, mirrors and crops an image and its labels.

    The scaled image has round(scale * size) rows and columns. It is rotated inside that frame about
    (columns / 2, rows / 2), blurred by the kernel 1 4 6 4 1 / 16 along rows and columns (border reflected without the
    edge pixel), mirrored, changed in colour, padded where it is smaller than the crop (half of the padding, rounded
    down, at the top and left), and cut. Images are interpolated bilinearly, labels take the nearest pixel, both at
    pixel centres.

    Args:
        image: uint8, uint16 or float32 [H, W, C].
        label: uint8 [H, W].
        scale: factor on both sides, positive.
        angle_degrees: rotation, positive counter-clockwise; 0 or None for none.
        blur: whether to blur.
        flip: whether to mirror left and right.
        offset_yx: row and column of the crop's first pixel in the mirrored, padded image.
        crop_size: rows and columns (h, w) of the result; two Python integers.
        fill: C values, the colour where there is no image.
        ignore_label: the label there.
        color_jitter: ColorJitter for photographs, of which the mean grey is the crop's; None for none.

    Returns:
        float32 [h, w, C], in units of the image's values, and uint8 [h, w].

    Raises:
        ValueError, tf.errors.InvalidArgumentError: image and label differ in size; a scale that leaves no pixel; an
            offset at which the crop does not fit.
    """
    fill = tf.cast(fill, tf.float32)
    difference, crop_label = augmented_difference(
        image,
        label,
        scale=scale,
        angle_degrees=angle_degrees,
        blur=blur,
        flip=flip,
        offset_yx=offset_yx,
        crop_size=crop_size,
        fill=fill,
        ignore_label=ignore_label,
        color_jitter=color_jitter,
    )
    return per_channel(tf.add, difference, fill), crop_label


def augmented_difference(
    image: np.ndarray | tf.Tensor,
    label: np.ndarray | tf.Tensor,
    *,
    scale: float | tf.Tensor,
    angle_degrees: float | tf.Tensor | None,
    blur: bool | tf.Tensor,
    flip: bool | tf.Tensor,
    offset_yx: Sequence[int] | tf.Tensor,
    crop_size: Sequence[int],
    fill: Sequence[float] | np.ndarray | tf.Tensor,
    ignore_label: int,
    color_jitter: ColorJitter | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """As `apply_augmentation`, but of the image its difference from `fill`, which is where the work is done.

    With the mean colour as fill, only the division by the standard deviation is left of the normalization.
    """
    image, label = tf.convert_to_tensor(image), tf.convert_to_tensor(label)
    scale = tf.cast(scale, tf.float32)
    angle_degrees = tf.cast(0.0 if angle_degrees is None else angle_degrees, tf.float32)
    blur, flip = tf.cast(blur, tf.bool), tf.cast(flip, tf.bool)
    offset_yx = tf.cast(offset_yx, tf.int32)
    fill = tf.cast(fill, tf.float32)
    frame = frame_size(tf.shape(image)[:2], scale)
    crop = tf.constant(crop_size, tf.int32)
    with tf.control_dependencies([_check(image, label, frame, offset_yx, crop)]):
        kept = tf.minimum(frame, crop)
    padding = tf.maximum(crop - frame, 0) // 2

    window = crop_window(frame, offset_yx, kept, flip)
    warp = Warp(frame, scale, angle_degrees)
    pixels = warped_and_blurred(image, warp, window, blur, fill)
    if color_jitter is not None:
        changed = jitter_colors(per_channel(tf.add, pixels, fill), color_jitter)
        pixels = per_channel(tf.subtract, changed, fill)
    values = warp.labels(label, window, ignore_label)
    pixels, values = cond(flip, lambda: (tf.reverse(pixels, [1]), tf.reverse(values, [1])), lambda: (pixels, values))

    around = tf.stack([padding, crop - kept - padding], axis=1)
    # Of the difference from the fill, padding is 0.
    pixels = tf.pad(pixels, tf.pad(around, [[0, 1], [0, 0]]))
    values = tf.pad(values, around, constant_values=tf.cast(ignore_label, tf.uint8))
    return tf.reshape(pixels, (*crop_size, fill.shape[0])), tf.reshape(values, crop_size)


def _place(draws, room):
    """int32 [2], a place of the crop's first pixel; `draws` are two numbers from 0 to 1."""
    # A draw just below 1 times a large number may round up to that number.
    return tf.minimum(tf.cast(draws * tf.cast(room + 1, tf.float32), tf.int32), room)


def _mixed_crop(seed, drawn, room, classes, class_table, crop_size, cat_max_ratio):
    """int32 [2], the place of the first crop of which no class has too large a share."""
    ignored = IGNORE_LABEL if class_table is None else int(np.flatnonzero(class_table == IGNORE_LABEL)[0])
    frame = frame_size(tf.shape(classes), drawn.scale)
    kept = tf.minimum(frame, tf.constant(crop_size, tf.int32))
    warp = Warp(frame, drawn.scale, drawn.angle_degrees)
    draws = tf.random.stateless_uniform([_CROP_TRIES, 2], seed, alg="philox")

    def is_mixed(offset):
        window = crop_window(frame, offset, kept, drawn.flip)
        values = tf.reshape(tf.cast(warp.labels(classes, window, ignored), tf.int32), [-1])
        counts = tf.math.bincount(values, minlength=256, maxlength=256)
        if class_table is not None:
            # Of 256 counts, not of every pixel.
            counts = tf.math.unsorted_segment_sum(counts, class_table.astype(np.int32), 256)
        counts = counts[:IGNORE_LABEL]
        largest, total = tf.cast(tf.reduce_max(counts), tf.float32), tf.cast(tf.reduce_sum(counts), tf.float32)
        return (tf.math.count_nonzero(counts) > 1) & (largest < cat_max_ratio * total)

    def next_try(index, offset, _):
        offset = _place(draws[index], room)
        return index + 1, offset, is_mixed(offset)

    start = (tf.constant(0), drawn.offset_yx, is_mixed(drawn.offset_yx))
    return tf.while_loop(lambda index, _, mixed: ~mixed & (index < _CROP_TRIES), next_try, start)[1]


def _happens(draw, probability):
    return tf.constant(probability == 1) if probability in (0, 1) else draw < probability


def _check(image, label, frame, offset_yx, crop):
    room = tf.maximum(frame - crop, 0)
    fits = tf.reduce_all(
        tf.concat([tf.shape(image)[:2] == tf.shape(label), frame > 0, offset_yx >= 0, offset_yx <= room], 0)
    )
    message = ["image and label must be of one size, a scale must leave pixels, the crop must fit at offset_yx; image"]
    message += [tf.shape(image), "label", tf.shape(label), "scaled", frame, "crop", crop, "offset_yx", offset_yx]
    return tf.debugging.Assert(fits, message)
