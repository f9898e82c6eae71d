"""The 5x5 Gaussian filter of the augmentation: of a window's pixels and those around it, no others."""

import tensorflow as tf

from psanet_tf.data.resampling import Warp, cond

_MARGIN = 2  # pixels that the kernel looks beyond the one it computes


def warped_and_blurred(image: tf.Tensor, warp: Warp, window: tf.Tensor, blur: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """The pixels of a window of a scaled and turned image, blurred or not.

    Args:
        image: uint8, uint16 or float32 [H, W, C].
        warp: Warp.
        window: int32 [4], from `crop_window`.
        blur: bool scalar, whether the kernel 1 4 6 4 1 / 16 is applied along rows and columns.
        fill: float32 [C], the colour where there is no image.

    Returns:
        float32 [height, width, C], the pixels' differences from `fill`.
    """
    # The kernel looks beyond the window, but not beyond the frame, where it is reflected.
    before = tf.minimum(window[:2], _MARGIN)
    after = tf.minimum(warp.frame - window[:2] - window[2:], _MARGIN)
    larger = tf.concat([window[:2] - before, window[2:] + before + after], 0)
    pixels = warp.pixels(image, cond(blur, lambda: larger, lambda: window), fill)

    def blurred():
        missing = _MARGIN - tf.stack([before, after], axis=1)
        reflected = cond(tf.reduce_any(missing > 0), lambda: _reflect(pixels, missing), lambda: pixels)
        return _binomial(reflected)

    return cond(blur, blurred, lambda: pixels)


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
