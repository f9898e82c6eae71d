"""Point-wise spatial attention block by block: neither the mask nor the whole matrix is ever in memory.

The mask is a 1x1 convolution of the predictors, so the weights that a block of positions predicts are one product of
the block's predictors with the part of the kernel for the offsets that occur between the block and the map. Offsets
become positions by a change of row length, once per axis (the "skew" of relative position encodings).

The blocks are of the positions that predict: destinations in collect, whose rows of the softmax are whole, and sources
in distribute, over which maxima and sums run on (as in FlashAttention; its backward pass too, which makes the weights
again from the logarithms of the sums).
"""

import functools
from collections.abc import Sequence

import tensorflow as tf

from psanet_tf.ops.position_blocks import Length, PositionBlocks


def attend_in_blocks(
    features: tf.Tensor,
    predictors: tf.Tensor,
    kernel: tf.Tensor,
    direction: str,
    softmax: bool,
    block_size: tuple[int, int],
) -> tf.Tensor:
    """`psa_attention` in blocks; differentiable once, block by block too.

    Args:
        features: [N, H, W, C].
        predictors: [N, H, W, P], the dtype of `features`.
        kernel: [P, mask_h, mask_w] with one entry for every offset that can occur, see `fit_kernel`; the dtype of
            `features`.
        direction: "collect" or "distribute".
        softmax: whether the weights are normalized over the sources.
        block_size: rows and columns of a block; one larger than the map is the map.

    Returns:
        [N, H, W, C], the dtype of `features`.
    """
    blocks = _Attention(direction, softmax, block_size)

    @tf.custom_gradient
    def attend(features, predictors, kernel):
        outputs, statistics = blocks.run("forward", features, predictors, kernel)

        def gradient(upstream):
            return blocks.run("backward", features, predictors, kernel, outputs, statistics, upstream)

        return outputs, gradient

    return attend(features, predictors, kernel)


def fit_kernel(kernel: tf.Tensor, size: Sequence[Length]) -> tf.Tensor:
    """The kernel's entries for the offsets that occur on a map of `size`, zeros for those that the mask lacks.

    Args:
        kernel: [P, mask_h, mask_w].
        size: H and W, integers or scalar integer tensors.

    Returns:
        [P, 2 * H - 1, 2 * W - 1].
    """
    begin, end, paddings = [], [], [(0, 0)]
    for mask_length, length in zip(kernel.shape[1:], size, strict=True):
        before = (mask_length - 1) // 2
        behind = mask_length - 1 - before
        reach = length - 1
        begin.append(_at_least(before - reach, 0))
        end.append(mask_length - _at_least(behind - reach, 0))
        paddings.append((_at_least(reach - before, 0), _at_least(reach - behind, 0)))
    kernel = kernel[:, begin[0] : end[0], begin[1] : end[1]]
    if any(isinstance(amount, tf.Tensor) or amount for pair in paddings for amount in pair):
        kernel = tf.pad(kernel, paddings)
    return kernel


class _Attention:
    """The loops over the blocks, for one choice of what does not depend on the tensors."""

    def __init__(self, direction, softmax, block_size):
        self.direction, self.softmax, self.block_size = direction, softmax, tuple(block_size)

    def run(self, name, *tensors):
        """`name`, as a graph: only there loops can add to a tensor in place."""
        if tf.executing_eagerly():
            return _graph_function(name, self.direction, self.softmax, self.block_size)(*tensors)
        return getattr(self, name)(*tensors)

    def forward(self, features, predictors, kernel):
        """Outputs, and in distribute the logarithms of the softmax's sums, [N, 1, H * W], else zeros."""
        blocks = PositionBlocks(_shape(features)[:3], self.block_size)
        dtype, wide = features.dtype, _wide(features.dtype)
        flat = _flat(features)
        if self.direction == "collect":
            state = [tf.reshape(tf.zeros_like(features), [-1, features.shape[3]])]
            (outputs,) = blocks.loop(self._collect, state, predictors, kernel, flat)
            return tf.reshape(outputs, tf.shape(features)), tf.zeros([], wide)
        if not self.softmax:
            state = [tf.zeros_like(flat, wide)]
            (outputs,) = blocks.loop(self._distribute_sums, state, predictors, kernel, features)
            return tf.reshape(tf.cast(outputs, dtype), tf.shape(features)), tf.zeros([], wide)
        maxima = tf.fill(tf.stack([blocks.n, 1, blocks.count]), tf.constant(wide.min, wide))
        state = [tf.zeros_like(flat, wide), maxima, tf.zeros_like(maxima)]
        outputs, maxima, sums = blocks.loop(self._distribute, state, predictors, kernel, features)
        outputs = tf.cast(outputs / _swap(sums), dtype)
        return tf.reshape(outputs, tf.shape(features)), maxima + tf.math.log(sums)

    def backward(self, features, predictors, kernel, outputs, statistics, upstream):
        """Gradients for features, predictors and kernel."""
        shape = _shape(features)
        blocks = PositionBlocks(shape[:3], self.block_size)
        wide = _wide(features.dtype)
        kernel_shape = tf.shape(kernel)
        for_features = tf.zeros_like(features, wide)
        for_predictors = tf.reshape(tf.zeros_like(predictors, wide), [-1, predictors.shape[3]])
        for_kernel = tf.zeros(tf.stack([kernel_shape[1], kernel_shape[2], predictors.shape[3]]), wide)
        if self.direction == "collect":
            state = [_flat(for_features), for_predictors, for_kernel]
            constants = [_flat(features), upstream]
            state = blocks.loop(self._collect_gradient, state, predictors, kernel, *constants)
        else:
            state = [tf.reshape(for_features, [-1, features.shape[3]]), for_predictors, for_kernel]
            # Of a destination: the sum of its weights times their gradients, which is this product.
            products = tf.cast(upstream, wide) * tf.cast(outputs, wide)
            products = tf.reshape(tf.reduce_sum(products, axis=3), tf.stack([blocks.n, 1, blocks.count]))
            constants = [features, _flat(upstream), statistics, products]
            state = blocks.loop(self._distribute_gradient, state, predictors, kernel, *constants)
        for_features, for_predictors, for_kernel = state
        return (
            tf.reshape(tf.cast(for_features, features.dtype), tf.shape(features)),
            tf.reshape(tf.cast(for_predictors, predictors.dtype), tf.shape(predictors)),
            tf.transpose(tf.cast(for_kernel, kernel.dtype), [2, 0, 1]),
        )

    def _collect(self, block, outputs, features):
        weights = tf.cast(self._rows(block), features.dtype)
        return [block.write(outputs, tf.matmul(weights, features))]

    def _distribute_sums(self, block, outputs, features):
        weights = block.without_old(block.logits())
        added = tf.matmul(weights, block.of_map(features), transpose_a=True)
        return [outputs + tf.cast(added, outputs.dtype)]

    def _distribute(self, block, outputs, maxima, sums, features):
        logits = tf.cast(block.logits(), maxima.dtype)
        new_maxima = tf.maximum(maxima, tf.reduce_max(logits, axis=1, keepdims=True))
        weights = block.without_old(tf.exp(logits - new_maxima))
        shrink = tf.exp(maxima - new_maxima)
        sums = sums * shrink + tf.reduce_sum(weights, axis=1, keepdims=True)
        added = tf.matmul(tf.cast(weights, features.dtype), block.of_map(features), transpose_a=True)
        return [outputs * _swap(shrink) + tf.cast(added, outputs.dtype), new_maxima, sums]

    def _collect_gradient(self, block, for_features, for_predictors, for_kernel, features, upstream):
        own_upstream = block.without_old(block.of_map(upstream))
        weights = self._rows(block)
        for_logits = tf.cast(_products(own_upstream, features), weights.dtype)
        if self.softmax:
            for_logits = weights * (for_logits - tf.reduce_sum(weights * for_logits, axis=2, keepdims=True))
        added = tf.matmul(tf.cast(weights, features.dtype), own_upstream, transpose_a=True)
        for_features += tf.cast(added, for_features.dtype)
        return [for_features, *_add_for_logits(block, for_predictors, for_kernel, tf.cast(for_logits, features.dtype))]

    def _distribute_gradient(
        self, block, for_features, for_predictors, for_kernel, features, upstream, log_sums, products
    ):
        weights = block.logits()
        for_logits = _products(block.of_map(features), upstream)
        if self.softmax:
            weights = tf.exp(tf.cast(weights, log_sums.dtype) - log_sums)
            for_logits = weights * (tf.cast(for_logits, weights.dtype) - products)
        weights, for_logits = block.without_old(weights), block.without_old(for_logits)
        for_features = block.add(for_features, tf.matmul(tf.cast(weights, features.dtype), upstream))
        return [for_features, *_add_for_logits(block, for_predictors, for_kernel, tf.cast(for_logits, features.dtype))]

    def _rows(self, block):
        """Weights of the block's destinations, [N, B, H * W]: wide after a softmax."""
        logits = block.logits()
        return tf.nn.softmax(tf.cast(logits, _wide(logits.dtype))) if self.softmax else logits


def _add_for_logits(block, for_predictors, for_kernel, for_logits):
    own_predictors, own_kernel = block.gradients_of_logits(for_logits)
    return block.add(for_predictors, own_predictors), block.add_to_kernel(for_kernel, own_kernel)


def _products(of_block, of_map):
    """[N, B, C] and [N, H * W, C] -> [N, B, H * W].

    With the long matrix on the left TensorFlow multiplies up to three times as fast on a CPU, which is worth turning
    the product round.
    """
    return _swap(tf.matmul(of_map, of_block, transpose_b=True))


@functools.cache
def _graph_function(name, *arguments):
    return tf.function(getattr(_Attention(*arguments), name), autograph=False)


def _flat(x):
    """[N, H, W, C] -> [N, H * W, C]."""
    n, h, w, channels = _shape(x)
    return tf.reshape(x, tf.stack([n, h * w, channels]))


def _swap(x):
    """[N, A, B] -> [N, B, A]."""
    return tf.linalg.matrix_transpose(x)


def _shape(x):
    dynamic = tf.shape(x)
    return [dynamic[axis] if length is None else length for axis, length in enumerate(x.shape)]


def _wide(dtype):
    return tf.float64 if dtype == tf.float64 else tf.float32


def _at_least(length, limit):
    return tf.maximum(length, limit) if isinstance(length, tf.Tensor) else max(length, limit)
