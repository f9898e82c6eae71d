"""Scaling and rotating an image and its labels in one resampling, of the pixels that are kept and no others."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf

from psanet_tf.data.channels import per_channel

_Result = TypeVar("_Result")


class Warp:
    """Scaling and rotation: samples of the image at the pixels of a window of the frame.

    A window is int32 [4]: first row, first column, rows, columns. Coordinates x and y count from the outer edge of
    the first pixel, so that pixel i is centred at i + 0.5.
    """

    def __init__(self, frame: tf.Tensor, scale: tf.Tensor, angle_degrees: tf.Tensor) -> None:
        self.frame = frame
        self.scale = scale
        self.rotated = tf.not_equal(angle_degrees, 0)
        angle = angle_degrees * (np.pi / 180)
        # From the frame to the image: turned back about the centre (given in pixel indices), then scaled back.
        matrix = tf.stack([[tf.cos(angle), -tf.sin(angle)], [tf.sin(angle), tf.cos(angle)]])
        center = tf.cast(frame[::-1], tf.float32) / 2 + 0.5
        self._matrix = matrix / scale
        self._shift = (center - tf.linalg.matvec(matrix, center)) / scale

    def pixels(self, image: tf.Tensor, window: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
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

        return cond(self.rotated, rotated, scaled)

    def labels(self, label: tf.Tensor, window: tf.Tensor, ignore_label: int) -> tf.Tensor:
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

        return cond(self.rotated, rotated, scaled)

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


def frame_size(image_size: Sequence[int] | tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Rows and columns of the scaled image, int32 [2]."""
    return tf.cast(tf.round(tf.cast(image_size, tf.float32) * scale), tf.int32)


def crop_window(frame: tf.Tensor, offset_yx: tf.Tensor, kept: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """The window (see `Warp`) of the frame before it is mirrored that a crop keeps.

    Args:
        frame: int32 [2], its rows and columns.
        offset_yx: int32 [2], row and column where the crop starts in the mirrored frame.
        kept: int32 [2], rows and columns of the frame that are in the crop.
        flip: bool scalar, whether it is mirrored.
    """
    column = tf.where(flip, frame[1] - offset_yx[1] - kept[1], offset_yx[1])
    return tf.stack([offset_yx[0], column, kept[0], kept[1]])


def cond(condition: tf.Tensor, if_true: Callable[[], _Result], if_false: Callable[[], _Result]) -> _Result:
    """`tf.cond`, or the branch itself where the condition is known when the graph is made: a smaller graph."""
    known = tf.get_static_value(condition)
    if known is None:
        return tf.cond(condition, if_true, if_false)
    return if_true() if known else if_false()
