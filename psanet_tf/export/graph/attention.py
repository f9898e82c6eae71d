"""Attention maps as a graph: `psanet_tf.attention_maps` for use inside a `tf.function`."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.export.graph.whole import pad_to_stride
from psanet_tf.inference.attention import LONGEST_SIDE


class GraphAttention:
    """Attention at points of one image, placed in the network's input as `psanet_tf.attention_maps` does.

    Args:
        matrices: normalized images float32 [1, H, W, C] -> {direction: [1, h * w, h * w]}, rows destinations, and
            "feature_size": [2], rows and columns of the features.
        input_size: (rows, columns) of the network's input; None if it takes any size of the form 8n + 1.
        grid: sizes of input and features -> where the attention looks: `attention_grid` of the network.
        images: `ImageFormat`.
    """

    def __init__(
        self,
        matrices: Callable[[tf.Tensor], dict[str, tf.Tensor]],
        input_size: Sequence[int] | None,
        grid: Callable[[Sequence[tf.Tensor], Sequence[tf.Tensor]], tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
        images: ImageFormat = PHOTOGRAPHS,
    ) -> None:
        self._images = images
        self._matrices = matrices
        self._input_size = input_size
        self._grid = grid

    def maps(self, image: tf.Tensor, points: tf.Tensor, name: str | tf.Tensor) -> dict[str, tf.Tensor]:
        """Attention at points.

        Args:
            image: [H, W, C] of the format's dtype.
            points: float32 [P, 2], x and y in pixels from the left and from the top.
            name: string tensor for error messages.

        Returns:
            ``{"collect": [P, h, w], "distribute": [P, h, w], "image_box": [4]}``, float32, with the directions
            that the network has; the box is (top, left, bottom, right) of the image in map positions, with the
            centre of map row r at r. It reaches beyond the map where positions begin and end inside the image.

        Raises:
            tf.errors.InvalidArgumentError: when run, a point that is not on the image.
        """
        image_size = tf.shape(image)[:2]
        limits = tf.cast(tf.reverse(image_size, [0]), tf.float32)
        size_text = tf.strings.format("columns and rows, {}", tf.reverse(image_size, [0]))
        inside = tf.debugging.Assert(
            tf.reduce_all((points >= 0) & (points < limits)),
            [tf.strings.join([name, " must be x, y from 0 to below the image's ", size_text])],
        )
        with tf.control_dependencies([inside]):
            points = tf.identity(points)
        inputs, resized_size, offset = self._place(image)
        input_size = tf.shape(inputs)[1:3]
        matrices = self._matrices(inputs)
        map_size, first, step = self._grid(tf.unstack(input_size), tf.unstack(matrices.pop("feature_size")))
        scale = tf.cast(resized_size, tf.float64) / tf.cast(image_size, tf.float64)
        offset = tf.cast(offset, tf.float64)
        in_input = (tf.cast(tf.reverse(points, [1]), tf.float64) + 0.5) * scale - 0.5 + offset
        cells = tf.clip_by_value(tf.cast(tf.round((in_input - first) / step), tf.int32), 0, map_size - 1)
        flat = cells[:, 0] * map_size[1] + cells[:, 1]
        shape = tf.concat([[tf.size(flat)], map_size], axis=0)
        outputs = {
            direction: tf.reshape(_at(tf.cast(matrix[0], tf.float32), flat, direction), shape)
            for direction, matrix in matrices.items()
        }
        edges = [offset - 0.5, offset + tf.cast(resized_size, tf.float64) - 0.5]
        box = tf.concat([(edge - first) / step for edge in edges], axis=0)
        return {**outputs, "image_box": tf.cast(box, tf.float32)}

    def _place(self, image):
        """(normalized input [1, H, W, C], [rows, columns] of the image in it, [top, left] of the image in it)."""
        image_size = tf.cast(tf.shape(image)[:2], tf.float64)
        if self._input_size is None:
            scale = tf.minimum(LONGEST_SIDE / tf.reduce_max(image_size), 1)
        else:
            scale = tf.minimum(tf.reduce_min(tf.constant(self._input_size, tf.float64) / image_size), 1)
        resized_size = tf.maximum(tf.cast(tf.round(scale * image_size), tf.int32), 1)
        # The mean colour is 0 once normalized.
        resized = self._images.normalize(tf.image.resize(image, resized_size))[None]
        padded = resized if self._input_size else pad_to_stride(resized)
        input_size = tf.constant(self._input_size) if self._input_size else tf.shape(padded)[1:3]
        offset = (input_size - resized_size) // 2
        after = input_size - resized_size - offset
        paddings = tf.stack([[0, 0], [offset[0], after[0]], [offset[1], after[1]], [0, 0]])
        inputs = tf.pad(resized, paddings)
        inputs.set_shape([1, *(self._input_size or (None, None)), self._images.channels])
        return inputs, resized_size, offset


def _at(matrix, flat, direction):
    """[P, positions]: what points gather from everywhere, or what they hand out to everywhere."""
    if direction == "collect":
        return tf.gather(matrix, flat)
    return tf.transpose(tf.gather(matrix, flat, axis=1))
