"""3x3 convolutions of many channels on CPUs: three matrix products and a sum of shifted maps."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from psanet_tf.ops.compiling import traced_for_xla
from psanet_tf.ops.exporting import traced_for_export

# Below, moving the products about costs what they gain (docs/benchmarks/convolutions.md).
MIN_CHANNELS = 1024
# Below, bringing the kernel's weights into the products' order does.
MIN_PIXELS = 1024

_stock_only = False  # set by `stock_convolutions`


def sum_of_products(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`tf.nn.conv2d(images, kernel, 1, "SAME")` of a 3x3 kernel, by matrix products.

    A convolution is linear in what each of the kernel's nine positions sees, so the products of all pixels with the
    weights of a position can be taken first and be moved into place afterwards::

        out[n, y, x] = sum over i, j of (images . kernel[i, j])[n, y + i - 1, x + j - 1]     0 outside the map

    The positions of one kernel row share a product, [N * H * W, C] by [C, 3 * filters]; the rows follow one another,
    so that the memory of one is enough. The gradients are products too.

    Args:
        images: [N, H, W, C], floating point; N, H and W may be dynamic.
        kernel: [3, 3, C, filters], the same dtype.

    Returns:
        [N, H, W, filters].
    """

    @tf.custom_gradient
    def convolve(images, kernel):
        def gradient(upstream):
            return _gradients(images, kernel, upstream)

        return sum_of_row_products(images, kernel_rows(kernel)), gradient

    outputs = convolve(tf.convert_to_tensor(images), tf.convert_to_tensor(kernel))
    outputs.set_shape([*images.shape[:3], kernel.shape[3]])
    return outputs


def kernel_rows(kernel: tf.Tensor) -> tf.Tensor:
    """[3, C, 3 * filters], the matrices of a kernel [3, 3, C, filters], one per kernel row."""
    channels, filters = kernel.shape[2:]
    return tf.reshape(tf.transpose(kernel, [0, 2, 1, 3]), [3, channels, 3 * filters])


def sum_of_row_products(images: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """What `sum_of_products` computes, of `kernel_rows(kernel)`; its gradient holds many copies of the maps.

    Args:
        images: [N, H, W, C].
        rows: [3, C, 3 * filters].

    Returns:
        [N, H, W, filters].
    """
    channels, filters = rows.shape[1], rows.shape[2] // 3
    pixels = tf.reshape(images, [-1, channels])
    size = tf.concat([tf.shape(images)[:3], [3 * filters]], 0)
    outputs = None
    for i, row in enumerate(tf.unstack(rows)):
        with _after(outputs):
            products = tf.reshape(tf.matmul(pixels, row), size)
        moved = [_move(products, 1 - i, 1 - j, slice(j * filters, (j + 1) * filters)) for j in range(3)]
        outputs = tf.add_n(moved if outputs is None else [outputs, *moved])
    return outputs


# AutoGraph would rewrite what only looks about.
@tf.autograph.experimental.do_not_convert
def products_serve(images: tf.Tensor, kernel_shape: tf.TensorShape) -> bool:
    """Whether `sum_of_products` is the faster form where the caller is being run or traced.

    It is for float32, on CPUs, for `MIN_CHANNELS` channels and more, and for maps of `MIN_PIXELS` pixels and more or of
    dynamic size. It is not used where there is a GPU, inside XLA, within `stock_convolutions`, or in a function that an
    export traces, since what reads the file may have a GPU.

    Args:
        images: [N, H, W, C].
        kernel_shape: of a convolution with strides 1, no dilation and padding "same".
    """
    if not has_product_form(images.dtype, kernel_shape) or _stock_only or tf.config.get_visible_devices("GPU"):
        return False
    if images.shape[1:3].is_fully_defined() and images.shape[1:3].num_elements() < MIN_PIXELS:
        return False
    return not traced_for_xla() and not traced_for_export()


def has_product_form(dtype: tf.DType, kernel_shape: tf.TensorShape) -> bool:
    """Whether a convolution of this dtype and kernel, not strided nor dilated, gains by `sum_of_products` on a CPU."""
    return dtype == tf.float32 and tuple(kernel_shape[:2]) == (3, 3) and kernel_shape[2] >= MIN_CHANNELS


@contextlib.contextmanager
def stock_convolutions() -> Iterator[None]:
    """Within, layers convolve by TensorFlow's op alone; in a `tf.function`, if it is traced within."""
    global _stock_only
    before, _stock_only = _stock_only, True
    try:
        yield
    finally:
        _stock_only = before


def _gradients(images, kernel, upstream):
    channels, filters = kernel.shape[2:]
    pixels = tf.reshape(images, [-1, channels])
    image_gradient, kernel_gradient = None, []
    for i, row in enumerate(tf.unstack(kernel_rows(kernel))):
        with _after(image_gradient, *kernel_gradient[-1:]):
            moved = tf.concat([_move(upstream, i - 1, j - 1) for j in range(3)], axis=-1)
            moved = tf.reshape(moved, [-1, 3 * filters])
        by_image = tf.matmul(moved, row, transpose_b=True)
        image_gradient = by_image if image_gradient is None else image_gradient + by_image
        by_kernel = tf.reshape(tf.matmul(pixels, moved, transpose_a=True), [channels, 3, filters])
        kernel_gradient.append(tf.transpose(by_kernel, [1, 0, 2]))
    return tf.reshape(image_gradient, tf.shape(images)), tf.stack(kernel_gradient)


def _move(maps, down, right, channels=slice(None)):
    """`channels` of [N, H, W, C] moved by one row or column or none, zeros where nothing comes from."""
    return tf.pad(maps[:, _KEPT[down], _KEPT[right], channels], [(0, 0), _ADDED[down], _ADDED[right], (0, 0)])


_KEPT = {-1: slice(1, None), 0: slice(None), 1: slice(None, -1)}
_ADDED = {-1: (0, 1), 0: (0, 0), 1: (1, 0)}


def _after(*tensors):
    """What is made within waits for `tensors`; without, a graph would hold the products of all rows at once."""
    return tf.control_dependencies([tensor for tensor in tensors if tensor is not None])
