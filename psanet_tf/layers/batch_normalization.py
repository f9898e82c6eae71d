"""Batch normalization with the running statistics of PyTorch, fused kernels and cheap synchronization."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.layers.replicas import mean_over_replicas, replicas

# Whether this thread computes something again: replicas are traced in threads of their own.
_again = threading.local()


@contextlib.contextmanager
def keep_statistics() -> Iterator[None]:
    """Within, layers normalize as they would, but leave the moving statistics as they are.

    For computations that are done again for their gradient (`tf.recompute_grad`), whose batch has been counted.
    """
    before = getattr(_again, "is_on", False)
    _again.is_on = True
    try:
        yield
    finally:
        _again.is_on = before


_FUSED_DTYPES = (tf.float16, tf.bfloat16, tf.float32)


@keras.saving.register_keras_serializable("psanet_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the last axis, equal to PyTorch's `BatchNorm2d`.

    It differs from Keras's own in three things: the moving variance follows the unbiased variance of the
    batch (n / (n - 1) times the biased one, as PyTorch keeps it), one fused kernel does the work wherever
    there is one, and `synchronized=True` needs one all-reduce per call and costs nothing on one replica.

    Args:
        momentum: share of the old moving statistics in the new ones; 0.9 is PyTorch's ``momentum=0.1``.
        epsilon: added to the variance.
        synchronized: take the statistics over the batches of all replicas of the `tf.distribute` strategy;
            every replica must hold as many elements.
        **kwargs: see `keras.layers.BatchNormalization`; `axis` stays -1.

    Call arguments:
        inputs: [N, ..., C], float16, bfloat16, float32 or float64; statistics are kept in the dtype of the
            layer's variables and computed in float32 or wider.
        training: True normalizes with the batch's statistics and updates the moving ones, unless
            `trainable` is False.

    Returns:
        Tensor like `inputs`.

    Raises:
        ValueError: `axis` is not -1.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, synchronized: bool = False, **kwargs: Any) -> None:
        if kwargs.get("axis", -1) not in (-1, [-1]):
            raise ValueError(f"BatchNormalization works on the last axis only: axis must be -1, got {kwargs['axis']!r}")
        kwargs["axis"] = -1
        super().__init__(momentum=momentum, epsilon=epsilon, synchronized=synchronized, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        inputs = tf.convert_to_tensor(inputs)
        wide = tf.float64 if inputs.dtype == tf.float64 else tf.float32
        gamma, beta = self._scale_and_offset(inputs.shape[-1], wide)
        mean, variance = (tf.cast(moving, wide) for moving in (self.moving_mean, self.moving_variance))
        if not training:
            return _affine(inputs, mean, variance, gamma, beta, self.epsilon)
        if not self.trainable:
            return _normalize_by(inputs, mean, variance, gamma, beta, self.epsilon)
        if _can_fuse(inputs) and not (self.synchronized and replicas() > 1):
            outputs, mean, unbiased = _fused_training(inputs, gamma, beta, self.epsilon)
        else:
            # About the moving mean, which all replicas share, the squares are small and little cancels.
            outputs, mean, unbiased = _normalize(inputs, gamma, beta, mean, self.epsilon, self.synchronized)
        self._update(self.moving_mean, mean)
        self._update(self.moving_variance, unbiased)
        return outputs

    def get_config(self) -> dict[str, Any]:
        # Legacy Keras leaves `synchronized` out, and its axis becomes a list in `build`.
        return {**super().get_config(), "axis": -1, "synchronized": self.synchronized}

    def _scale_and_offset(self, channels, dtype):
        gamma = tf.cast(self.gamma, dtype) if self.scale else tf.ones([channels], dtype)
        beta = tf.cast(self.beta, dtype) if self.center else tf.zeros([channels], dtype)
        return gamma, beta

    def _update(self, moving, batch):
        if getattr(_again, "is_on", False):
            return
        old = tf.cast(moving, batch.dtype)
        moving.assign(tf.cast(old * self.momentum + batch * (1 - self.momentum), moving.dtype))


def _normalize(inputs, gamma, beta, centre, epsilon, synchronized):
    """(outputs, mean, unbiased variance) with the statistics of the batch, over all replicas if `synchronized`.

    With x' = (x - mean) / s, s = sqrt(variance + epsilon), and means over all elements of a channel on all replicas

        dx = gamma / s * (dy - mean(dy) - x' * mean(dy * x'))

    Written down, the gradient takes two sums, one all-reduce and three more operations on whole maps, and all that it
    needs of the forward pass is `inputs` as they are; by itself TensorFlow takes twice as many, and for half precision
    keeps copies in float32.
    """
    shared = replicas() if synchronized else 1
    mean_of = mean_over_replicas if shared > 1 else tf.identity
    count = tf.cast(tf.size(inputs) // inputs.shape[-1], gamma.dtype)

    @tf.custom_gradient
    def normalize(inputs, gamma, beta):
        mean, variance = _moments(inputs, gamma.dtype)
        if shared > 1:
            offset = mean - centre
            offset, square = tf.unstack(mean_of(tf.stack([offset, variance + tf.square(offset)])))
            mean = centre + offset
            variance = tf.nn.relu(square - tf.square(offset))
        unbiased = variance * (count * shared / tf.maximum(count * shared - 1, 1))

        def gradient(upstream, *_):
            sums = _gradient_sums(inputs, upstream, mean, variance, epsilon)
            of_upstream, of_products = tf.unstack(mean_of(tf.stack(sums) / count))
            factor = -gamma * tf.math.rsqrt(variance + epsilon)
            scaled = _affine(upstream, tf.zeros_like(mean), variance, gamma, tf.zeros_like(mean), epsilon)
            rest = _affine(inputs, mean, variance, factor * of_products, factor * of_upstream, epsilon)
            return scaled + rest, sums[1], sums[0]

        return (_affine(inputs, mean, variance, gamma, beta, epsilon), mean, unbiased), gradient

    return normalize(inputs, gamma, beta)


def _normalize_by(inputs, mean, variance, gamma, beta, epsilon):
    """`_affine` by statistics that stay as they are, with a gradient.

    That of the fused kernel refuses to be deterministic on GPUs, that of plain operations keeps float32 copies.
    """

    @tf.custom_gradient
    def normalize(inputs, gamma, beta):
        def gradient(upstream):
            of_upstream, of_products = _gradient_sums(inputs, upstream, mean, variance, epsilon)
            zeros = tf.zeros_like(mean)
            return _affine(upstream, zeros, variance, gamma, zeros, epsilon), of_products, of_upstream

        return _affine(inputs, mean, variance, gamma, beta, epsilon), gradient

    return normalize(inputs, gamma, beta)


def _affine(inputs, mean, variance, scale, offset, epsilon):
    """(inputs - mean) / sqrt(variance + epsilon) * scale + offset, like `inputs`."""
    if _can_fuse(inputs):
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=epsilon, is_training=False
        ).y
    wide = tf.cast(inputs, mean.dtype)
    return tf.cast(tf.nn.batch_normalization(wide, mean, variance, offset, scale, epsilon), inputs.dtype)


def _fused_training(inputs, gamma, beta, epsilon):
    empty = tf.zeros([0], tf.float32)
    outputs = tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=gamma, offset=beta, mean=empty, variance=empty, epsilon=epsilon, is_training=True
    )
    # In training the kernel's second statistic is the unbiased variance.
    return outputs.y, outputs.batch_mean, outputs.batch_variance


def _moments(inputs, dtype):
    """(mean, biased variance) of each channel. (The fused kernel's sums have ten times the error on CPUs.)"""
    return tf.nn.moments(tf.cast(inputs, dtype), _all_but_channels(inputs))


def _gradient_sums(inputs, upstream, mean, variance, epsilon):
    """[sum of upstream, sum of upstream times normalized inputs] over all but the channels, like `mean`."""
    wide, axes = tf.cast(upstream, mean.dtype), _all_but_channels(inputs)
    of_upstream, of_products = tf.reduce_sum(wide, axes), tf.reduce_sum(wide * tf.cast(inputs, mean.dtype), axes)
    # What cancels here is mean / deviation times as large as what stays, which leaves float32 enough.
    return [of_upstream, (of_products - mean * of_upstream) * tf.math.rsqrt(variance + epsilon)]


def _all_but_channels(inputs):
    return list(range(inputs.shape.rank - 1))


def _can_fuse(inputs):
    return inputs.shape.rank == 4 and inputs.dtype in _FUSED_DTYPES
