"""Random augmentation of an image with its labels: parameters are drawn first, then applied.

The chain of the paper's public implementation: scale, rotate, blur, mirror, crop. Scaling and rotation are one
resampling here, of the pixels that the crop keeps and no others. All of it is TensorFlow operations without state, so
it runs in a tf.data pipeline on any number of threads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from psanet_tf.config import AugmentationSection
from psanet_tf.data.channels import per_channel

_BLUR_MARGIN = 2  # pixels that a 5x5 kernel looks beyond the one it computes


class AugmentationParameters(NamedTuple):
    """What is done to one image; `_asdict()` gives the keyword arguments of `apply_augmentation`.

    Attributes:
        scale: float32 scalar, factor on both sides.
        angle_degrees: float32 scalar, rotation, positive counter-clockwise; 0 for none.
        blur: bool scalar, whether the 5x5 Gaussian filter is applied.
        flip: bool scalar, whether left and right are exchanged.
        offset_yx: int32 [2], row and column where the crop starts, after mirroring and padding.
    """

    scale: tf.Tensor
    angle_degrees: tf.Tensor
    blur: tf.Tensor
    flip: tf.Tensor
    offset_yx: tf.Tensor


def draw_augmentation(
    seed: Sequence[int] | tf.Tensor,
    image_size: Sequence[int] | tf.Tensor,
    crop_size: Sequence[int],
    augmentation: AugmentationSection,
) -> AugmentationParameters:
    """Draws the parameters for one image.

    Args:
        seed: two integers; the same seed draws the same parameters.
        image_size: rows and columns of the image.
        crop_size: rows and columns of the crop.
        augmentation: `AugmentationSection`, the ranges and probabilities.

    Returns:
        AugmentationParameters.

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
    room = tf.maximum(_frame(image_size, scale) - tf.constant(crop_size, tf.int32), 0)
    return AugmentationParameters(
        scale=scale,
        angle_degrees=_cond(rotated, lambda: angle, lambda: tf.constant(0.0)),
        blur=_happens(draws[3], augmentation.blur_probability),
        flip=_happens(draws[4], augmentation.flip_probability),
        # A draw just below 1 times a large number may round up to that number.
        offset_yx=tf.minimum(tf.cast(draws[5:7] * tf.cast(room + 1, tf.float32), tf.int32), room),
    )


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
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scales, rotates, blurs, mirrors and crops an image and its labels.

    The scaled image has round(scale * size) rows and columns. It is rotated inside that frame about
    (columns / 2, rows / 2), blurred by the kernel 1 4 6 4 1 / 16 along rows and columns (border reflected without the
    edge pixel), mirrored, padded where it is smaller than the crop (half of the padding, rounded down, at the top and
    left), and cut. Images are interpolated bilinearly, labels take the nearest pixel, both at pixel centres.

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
    frame = _frame(tf.shape(image)[:2], scale)
    crop = tf.constant(crop_size, tf.int32)
    with tf.control_dependencies([_check(image, label, frame, offset_yx, crop)]):
        kept = tf.minimum(frame, crop)
    padding = tf.maximum(crop - frame, 0) // 2

    # Resampling works in the frame before it is mirrored.
    column = tf.where(flip, frame[1] - offset_yx[1] - kept[1], offset_yx[1])
    window = tf.stack([offset_yx[0], column, kept[0], kept[1]])
    warp = _Warp(frame, scale, angle_degrees)
    pixels = _warp_and_blur(image, warp, window, blur, fill)
    values = warp.labels(label, window, ignore_label)
    pixels, values = _cond(flip, lambda: (tf.reverse(pixels, [1]), tf.reverse(values, [1])), lambda: (pixels, values))

    around = tf.stack([padding, crop - kept - padding], axis=1)
    # Of the difference from the fill, padding is 0.
    pixels = tf.pad(pixels, tf.pad(around, [[0, 1], [0, 0]]))
    values = tf.pad(values, around, constant_values=tf.cast(ignore_label, tf.uint8))
    return tf.reshape(pixels, (*crop_size, fill.shape[0])), tf.reshape(values, crop_size)


def _happens(draw, probability):
    return tf.constant(probability == 1) if probability in (0, 1) else draw < probability


def _cond(condition, if_true, if_false):
    """`tf.cond`, or the branch itself where the condition is known when the graph is made: a smaller graph."""
    known = tf.get_static_value(condition)
    if known is None:
        return tf.cond(condition, if_true, if_false)
    return if_true() if known else if_false()


def _frame(image_size, scale):
    """Rows and columns of the scaled image, int32 [2]."""
    return tf.cast(tf.round(tf.cast(image_size, tf.float32) * scale), tf.int32)


def _check(image, label, frame, offset_yx, crop):
    room = tf.maximum(frame - crop, 0)
    fits = tf.reduce_all(
        tf.concat([tf.shape(image)[:2] == tf.shape(label), frame > 0, offset_yx >= 0, offset_yx <= room], 0)
    )
    message = ["image and label must be of one size, a scale must leave pixels, the crop must fit at offset_yx; image"]
    message += [tf.shape(image), "label", tf.shape(label), "scaled", frame, "crop", crop, "offset_yx", offset_yx]
    return tf.debugging.Assert(fits, message)


def _warp_and_blur(image, warp, window, blur, fill):
    """float32 [height, width, C], the window's pixels minus `fill`."""

    # The kernel looks beyond the window, but not beyond the frame, where it is reflected.
    before = tf.minimum(window[:2], _BLUR_MARGIN)
    after = tf.minimum(warp.frame - window[:2] - window[2:], _BLUR_MARGIN)
    larger = tf.concat([window[:2] - before, window[2:] + before + after], 0)
    pixels = warp.pixels(image, _cond(blur, lambda: larger, lambda: window), fill)

    def blurred():
        missing = _BLUR_MARGIN - tf.stack([before, after], axis=1)
        reflected = _cond(tf.reduce_any(missing > 0), lambda: _reflect(pixels, missing), lambda: pixels)
        return _binomial(reflected)

    return _cond(blur, blurred, lambda: pixels)


def _binomial(pixels):
    """float32 [height - 4, width - 4, C]: filtered by the kernel 1 4 6 4 1 / 16 along rows and columns.

    As sums of shifted numbers, whatever row they are in; those that mix two rows are cut off. TensorFlow's depthwise
    convolution takes six times as long on processors for which it leaves oneDNN's kernels out, half as long on others.
    """

    def along(numbers, step):
        length = tf.size(numbers) - 4 * step
        outer, inner, middle = [
            [numbers[place * step : place * step + length] for place in places] for places in ((0, 4), (1, 3), (2,))
        ]
        return tf.add_n(outer) + 4.0 * tf.add_n(inner) + 6.0 * middle[0]

    height, width = tf.unstack(tf.shape(pixels)[:2])
    channels = pixels.shape[-1]
    columns = along(tf.reshape(pixels, [-1]), width * channels)
    rows = along(columns, channels)
    filtered = tf.concat([rows / 256.0, columns[: 4 * channels]], 0)
    return tf.reshape(filtered, [height - 4, width, channels])[:, : width - 4]


def _reflect(pixels, margins):
    """`np.pad(pixels, margins, "reflect")` of rows and columns."""
    for axis in (0, 1):
        size = tf.shape(pixels)[axis]
        # Images narrower than the margin are reflected several times.
        period = tf.maximum(2 * (size - 1), 1)
        places = tf.math.floormod(tf.range(-margins[axis, 0], size + margins[axis, 1]), period)
        pixels = tf.gather(pixels, tf.minimum(places, period - places), axis=axis)
    return pixels


class _Warp:
    """Scaling and rotation: samples of the image at the pixels of a window of the frame.

    A window is int32 [4]: first row, first column, rows, columns. Coordinates x and y count from the outer edge of
    the first pixel, so that pixel i is centred at i + 0.5.
    """

    def __init__(self, frame, scale, angle_degrees):
        self.frame = frame
        self.scale = scale
        self.rotated = tf.not_equal(angle_degrees, 0)
        angle = angle_degrees * (np.pi / 180)
        # From the frame to the image: turned back about the centre (given in pixel indices), then scaled back.
        matrix = tf.stack([[tf.cos(angle), -tf.sin(angle)], [tf.sin(angle), tf.cos(angle)]])
        center = tf.cast(frame[::-1], tf.float32) / 2 + 0.5
        self._matrix = matrix / scale
        self._shift = (center - tf.linalg.matvec(matrix, center)) / scale

    def pixels(self, image, window, fill):
        """Bilinear samples minus `fill`; 0 outside of the image. float32 [height, width, C]."""
        part, origin = self._part(image, window)

        def scaled():
            # Edge pixels are repeated, for samples between the outermost centres and the border; `tf.pad` would take
            # as long as the rest.
            padded = tf.concat([part[:1], part, part[-1:]], 0)
            padded = tf.concat([padded[:, :1], padded, padded[:, -1:]], 1)
            steps = tf.cast(tf.stack([tf.zeros(2, tf.int32), window[2:] - 1]), tf.float32)
            samples = (tf.cast(window[:2], tf.float32) + steps + 0.5) / self.scale - 0.5
            samples = samples - tf.cast(origin, tf.float32) + 1
            box = samples / tf.cast(tf.shape(padded)[:2] - 1, tf.float32)
            result = tf.raw_ops.CropAndResize(
                image=padded[None], boxes=tf.reshape(box, [1, 4]), box_ind=[0], crop_size=window[2:]
            )[0]
            return per_channel(tf.subtract, result, fill)

        def rotated():
            difference = per_channel(tf.subtract, tf.cast(part, tf.float32), fill)
            return self._project(difference, window, origin, "BILINEAR", 0.0)

        return _cond(self.rotated, rotated, scaled)

    def labels(self, label, window, ignore_label):
        """Nearest samples; `ignore_label` outside of the image. uint8 [height, width]."""

        def scaled():
            size = tf.shape(label)
            rows, columns = [
                tf.minimum(
                    tf.cast(
                        (tf.cast(window[axis] + tf.range(window[axis + 2]), tf.float32) + 0.5) / self.scale, tf.int32
                    ),
                    size[axis] - 1,
                )
                for axis in (0, 1)
            ]
            return tf.gather(tf.gather(label, rows), columns, axis=1)

        def rotated():
            part, origin = self._part(label, window)
            return self._project(part[..., None], window, origin, "NEAREST", float(ignore_label))[..., 0]

        return _cond(self.rotated, rotated, scaled)

    def _part(self, array, window):
        """The part of an image that a window of the frame touches, and its first row and column."""
        first, last = tf.cast(window[:2][::-1], tf.float32), tf.cast((window[:2] + window[2:])[::-1], tf.float32)
        corners = tf.stack([first, last, tf.stack([first[0], last[1]]), tf.stack([last[0], first[1]])])
        corners = tf.linalg.matvec(self._matrix, corners) + self._shift
        # One more pixel around: bilinear samples have neighbours.
        lowest = tf.cast(tf.floor(tf.reduce_min(corners, 0)), tf.int32)[::-1] - 1
        highest = tf.cast(tf.math.ceil(tf.reduce_max(corners, 0)), tf.int32)[::-1] + 1
        size = tf.shape(array)[:2]
        # Some rotated windows see nothing of the image.
        begin = tf.clip_by_value(lowest, 0, size - 1)
        end = tf.clip_by_value(highest, begin + 1, size)
        return array[begin[0] : end[0], begin[1] : end[1]], begin

    def _project(self, part, window, origin, interpolation, fill_value):
        first = tf.cast(window[:2][::-1], tf.float32) + 0.5
        shift = tf.linalg.matvec(self._matrix, first) + self._shift - 0.5 - tf.cast(origin[::-1], tf.float32)
        rows = tf.concat([self._matrix, shift[:, None]], axis=1)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=part[None],
            transforms=tf.concat([tf.reshape(rows, [1, 6]), [[0.0, 0.0]]], axis=1),
            output_shape=window[2:],
            fill_value=fill_value,
            interpolation=interpolation,
            fill_mode="CONSTANT",
        )[0]
