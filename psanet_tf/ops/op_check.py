"""Whether `psa_mask` gives right numbers on a device: against its formula in NumPy, bit for bit."""

import numpy as np
import tensorflow as tf

from psanet_tf.ops.psa_mask import DTYPES, psa_mask

# Upper limits of the random (N, H, W) and mask sizes: rows of several thousand elements, masks smaller and larger.
_MOST_MAPS = 3
_LARGEST_MAP = (24, 40)
_LARGEST_MASK = (56, 88)


def difference(device: str, implementation: str, cases: int) -> str | None:
    """Runs `psa_mask` and its gradient on a device, in every dtype, on random sizes and numbers.

    Args:
        device: name of a logical device, e.g. "GPU:0".
        implementation: "custom" or "stock".
        cases: how many sizes.

    Returns:
        None if all is as it should be, else where it first was not.

    Raises:
        OpUnavailableError: `implementation` is "custom" and the op cannot be used.
    """
    random = np.random.default_rng(2018)
    for _ in range(cases):
        n, h, w = (int(random.integers(1, limit + 1)) for limit in (_MOST_MAPS, *_LARGEST_MAP))
        mask_size = tuple(int(random.integers(1, limit + 1)) for limit in _LARGEST_MASK)
        index = absolute_indices((h, w), mask_size)
        for dtype in DTYPES:
            mask = _random_bits(random, (n, h * w, mask_size[0] * mask_size[1]), dtype)
            gradient = _random_bits(random, (n, h * w, h * w), dtype)
            with tf.device(device):
                x = tf.bitcast(mask.reshape(n, h, w, -1), dtype)
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = psa_mask(x, mask_size, implementation)
                x_gradient = tape.gradient(y, x, tf.bitcast(gradient, dtype))
            for tensor in (y, x_gradient):
                if not tensor.device.endswith(f":{device}"):  # TensorFlow goes elsewhere without a word
                    return f"in {dtype.name} it ran on {tensor.device}"
            for what, found, expected in (
                ("forward", y, numpy_forward(mask, index)),
                ("gradient", x_gradient, numpy_gradient(gradient, index, mask.shape[2])),
            ):
                if not np.array_equal(found.numpy().view(mask.dtype).reshape(expected.shape), expected):
                    return f"{what} in {dtype.name}, N x H x W {n} x {h} x {w}, mask {mask_size[0]} x {mask_size[1]}"
    return None


def many_elements_difference(device: str, size: tuple[int, int, int] = (34, 64, 64)) -> str | None:
    """The same for the last map of tensors with more than 2^31 elements, float16, of the op: takes 11 GB.

    Args:
        device: name of a logical device.
        size: (N, H, W); smaller ones are for tests.

    Raises:
        tf.errors.ResourceExhaustedError: they do not fit.
        OpUnavailableError: the op cannot be used.
    """
    n, h, w = size
    mask_size = (2 * h - 1, 2 * w - 1)
    index = absolute_indices((h, w), mask_size)
    with tf.device(device):
        x = tf.random.stateless_uniform([n, h, w, mask_size[0] * mask_size[1]], [7, 8], 1, 2, tf.float16)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = psa_mask(x, mask_size, "custom")
        x_gradient = tape.gradient(y, x, y)
        last_x, last_y, last_gradient = (tensor[-1].numpy().view(np.uint16) for tensor in (x, y, x_gradient))
    expected = numpy_forward(last_x.reshape(1, h * w, -1), index)
    if not np.array_equal(last_y[None], expected):
        return f"forward of the last of {n} maps of {h} x {w}"
    if not np.array_equal(last_gradient.reshape(1, h * w, -1), numpy_gradient(expected, index, last_x.shape[-1])):
        return f"gradient of the last of {n} maps of {h} x {w}"
    return None


def absolute_indices(map_size: tuple[int, int], mask_size: tuple[int, int]) -> np.ndarray:
    """[H * W, H * W] index of position q's entry in position p's mask, -1 off the mask."""
    offsets = []
    for length, mask_length in zip(map_size, mask_size, strict=True):
        position = np.arange(length)
        offset = position[None, :] - position[:, None] + (mask_length - 1) // 2
        offsets.append(np.where((offset >= 0) & (offset < mask_length), offset, -1))
    y, x = offsets[0][:, None, :, None], offsets[1][None, :, None, :]
    positions = map_size[0] * map_size[1]
    return np.where((y >= 0) & (x >= 0), y * mask_size[1] + x, -1).reshape(positions, positions)


def numpy_forward(mask: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Mask [N, H * W, channels] -> attention [N, H * W, H * W], by `absolute_indices`."""
    return np.where(index >= 0, np.take_along_axis(mask, np.maximum(index, 0)[None], axis=2), mask.dtype.type(0))


def numpy_gradient(gradient: np.ndarray, index: np.ndarray, channels: int) -> np.ndarray:
    """Its transpose: [N, H * W, H * W] -> [N, H * W, channels]."""
    n, positions, _ = gradient.shape
    spare = np.zeros((n, positions, channels + 1), gradient.dtype)  # the last channel takes what is off the mask
    np.put_along_axis(spare, np.where(index >= 0, index, channels)[None].repeat(n, 0), gradient, axis=2)
    return spare[:, :, :channels]


def _random_bits(random, shape, dtype):
    """Unsigned integers that are finite numbers when taken for a floating-point dtype of their size."""
    bits = 8 * dtype.size
    numbers = random.integers(1, 2**bits, shape, dtype=f"uint{bits}", endpoint=False)
    return numbers & ~np.array(1 << (bits - 2), numbers.dtype)  # the exponent's highest bit
