"""Bilinear resize with aligned corners, as the original network does it, or half-pixel centres."""

from collections.abc import Sequence

import tensorflow as tf

from psanet_tf.ops.compiling import traced_for_xla
from psanet_tf.ops.portable import traced_portably


def resize_bilinear(
    images: tf.Tensor, size: Sequence[int | tf.Tensor], align_corners: bool | tf.Tensor = True
) -> tf.Tensor:
    """Resizes as PyTorch's ``interpolate(mode="bilinear")`` does, without antialiasing.

    With aligned corners the centres of the corner pixels stay in place: output row i samples input row
    i * (H - 1) / (height - 1), and a single output row samples row 0. With half-pixel centres the edges of the pixels
    at the border do: output row i samples input row (i + 0.5) * H / height - 0.5, no farther out than the outermost
    centres. The gradient is two matrix products: deterministic on a GPU, and on a CPU faster than TensorFlow's own.
    Inside XLA, and within `portable_operations`, the resize is two as well.

    Args:
        images: [N, H, W, C], float16, bfloat16, float32 or float64; C static.
        size: (height, width), integers or scalar integer tensors.
        align_corners: True, False for half-pixel centres, or a scalar bool tensor that decides when the graph runs.

    Returns:
        [N, height, width, C], the dtype of `images`; float16 and bfloat16 are interpolated in float32.

    Raises:
        ValueError: `images` is not of rank 4.
    """
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4:
        raise ValueError(f"images must be [N, H, W, C], got shape {images.shape}")
    input_size = tuple(_length(images, axis) for axis in (1, 2))
    size = tuple(_as_integer(length) for length in size)
    decided = tf.get_static_value(align_corners) if isinstance(align_corners, tf.Tensor) else align_corners
    steps = [_whole_step(*lengths, align_corners=decided) for lengths in zip(input_size, size, strict=True)]
    if all(steps):
        return images[:, :: steps[0], :: steps[1]] if steps != [1, 1] else images
    # TensorFlow's kernel answers in float32 whatever it is given, and must know the kind of resize beforehand. XLA
    # makes a gather of it, nine times as large as what comes out, and enlarges wrongly with half-pixel centres (the
    # last rows of 5 -> 9).
    by_kernel = images.dtype != tf.float64 and decided and not traced_for_xla() and not traced_portably()
    resized = _resize(images, input_size, size, align_corners, by_kernel)
    resized.set_shape([images.shape[0], *(_static(length) for length in size), images.shape[3]])
    return resized


def resample_bilinear(
    images: tf.Tensor,
    size: Sequence[int | tf.Tensor],
    stride: Sequence[float],
    offset: Sequence[float],
    step: int = 1,
) -> tf.Tensor:
    """Features at pixels, interpolated bilinearly between the pixels that the features look at.

    Feature row r looks at pixel row ``offset[0] + r * stride[0]``; output row i is the one of pixel row i * step, no
    farther out than the outermost features. With an offset of 0 and ``(H - 1) * stride[0]`` the last pixel it is
    `resize_bilinear` with aligned corners.

    Args:
        images: [N, H, W, C], float16, bfloat16, float32 or float64; C static.
        size: (height, width), integers or scalar integer tensors.
        stride: (row, column), pixels between neighbouring features.
        offset: (row, column), the pixel of the first feature.
        step: pixels between neighbouring outputs.

    Returns:
        [N, height, width, C], the dtype of `images`; float16 and bfloat16 are interpolated in float32.
    """
    images = tf.convert_to_tensor(images)
    wide = tf.float64 if images.dtype == tf.float64 else tf.float32
    lengths = [_length(images, axis) for axis in (1, 2)]
    matrices = []
    for length, output_length, first, distance in zip(lengths, size, offset, stride, strict=True):
        pixels = tf.cast(tf.range(output_length), wide) * step
        source = tf.clip_by_value((pixels - first) / distance, 0, tf.cast(length - 1, wide))
        matrices.append(_interpolation_matrix(source, length))
    resized = tf.cast(_interpolate(tf.cast(images, wide), *matrices), images.dtype)
    resized.set_shape([images.shape[0], *(_static(length) for length in size), images.shape[3]])
    return resized


def _resize(images, input_size, size, align_corners, by_kernel):
    wide = tf.float64 if images.dtype == tf.float64 else tf.float32

    @tf.custom_gradient
    def resize(images):
        def matrices():
            return [
                _interpolation_matrix(_source(*lengths, align_corners, wide), lengths[0])
                for lengths in zip(input_size, size, strict=True)
            ]

        def gradient(upstream):
            return tf.cast(_interpolate(tf.cast(upstream, wide), *matrices(), transpose=True), images.dtype)

        if by_kernel:
            resized = tf.raw_ops.ResizeBilinear(images=images, size=tf.stack(size), align_corners=True)
        else:
            resized = _interpolate(tf.cast(images, wide), *matrices())
        return tf.cast(resized, images.dtype), gradient

    return resize(images)


def _interpolate(images, rows, columns, transpose=False):
    """R_h . images . R_w' with the interpolation matrices R [output, input], or with their transposes."""
    height, width = (_length(matrix, 1 if transpose else 0) for matrix in (rows, columns))
    n, h, w = (_length(images, axis) for axis in range(3))
    channels = images.shape[3]
    tall = tf.matmul(rows[None], tf.reshape(images, tf.stack([n, h, w * channels])), transpose_a=transpose)
    wide = tf.matmul(columns[None], tf.reshape(tall, tf.stack([n * height, w, channels])), transpose_a=transpose)
    return tf.reshape(wide, tf.stack([n, height, width, channels]))


def _source(input_length, output_length, align_corners, dtype):
    """[output]: where each row of a resize samples the input."""
    target = tf.cast(tf.range(output_length), dtype)
    length, last = tf.cast(input_length, dtype), tf.cast(input_length - 1, dtype)
    aligned = target * (last / tf.cast(tf.maximum(output_length - 1, 1), dtype))
    half_pixel = tf.clip_by_value((target + 0.5) * (length / tf.cast(output_length, dtype)) - 0.5, 0, last)
    return tf.where(align_corners, aligned, half_pixel)


def _interpolation_matrix(source, input_length):
    """[output, input]: row i, which samples the input at s, holds max(0, 1 - |s - j|) for column j."""
    return tf.nn.relu(1 - tf.abs(source[:, None] - tf.cast(tf.range(input_length), source.dtype)))


def _whole_step(input_length, output_length, align_corners):
    """The step s where the resize is exactly every s-th sample from the first one on, else None."""
    if isinstance(input_length, tf.Tensor) or isinstance(output_length, tf.Tensor):
        return None
    if not align_corners:  # or not decided
        return 1 if input_length == output_length else None
    if output_length == 1:
        return input_length  # one sample, the first
    step, rest = divmod(input_length - 1, output_length - 1)
    if rest:
        return None
    return 1 if input_length == 1 == output_length else step or None


def _length(images, axis):
    static = images.shape[axis]
    return tf.shape(images)[axis] if static is None else static


def _as_integer(length):
    static = _static(length)
    return length if static is None else static


def _static(length):
    """`length` as a Python integer if it is known while tracing, else None."""
    value = tf.get_static_value(length) if isinstance(length, tf.Tensor) else length
    return None if value is None else int(value)
