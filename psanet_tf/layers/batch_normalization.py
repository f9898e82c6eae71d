"""Batch normalization with the running statistics of PyTorch, fused kernels and cheap synchronization."""

from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.layers.replicas import mean_over_replicas, replicas

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
        if not (training and self.trainable):
            # In training (a frozen layer) there is a gradient, which the fused kernel refuses to compute
            # deterministically on GPUs.
            if _can_fuse(inputs) and not training:
                return self._fused(inputs, gamma, beta, mean, variance, training=False)[0]
            return self._normalize(inputs, mean, variance, gamma, beta)
        if _can_fuse(inputs) and not (self.synchronized and replicas() > 1):
            empty = tf.zeros([0], tf.float32)
            outputs, mean, unbiased = self._fused(inputs, gamma, beta, empty, empty, training=True)
        else:
            mean, variance, unbiased = self._moments(inputs, wide)
            outputs = self._normalize(inputs, mean, variance, gamma, beta)
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

    def _fused(self, inputs, gamma, beta, mean, variance, training):
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        # In training the kernel's second statistic is the unbiased variance.
        return outputs.y, outputs.batch_mean, outputs.batch_variance

    def _normalize(self, inputs, mean, variance, gamma, beta):
        wide = tf.cast(inputs, mean.dtype)
        return tf.cast(tf.nn.batch_normalization(wide, mean, variance, beta, gamma, self.epsilon), inputs.dtype)

    def _moments(self, inputs, dtype):
        """(mean, biased variance, unbiased variance) over all replicas that take part."""
        wide = tf.cast(inputs, dtype)
        axes = list(range(inputs.shape.rank - 1))
        mean, variance = tf.nn.moments(wide, axes)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], dtype)
        if self.synchronized and replicas() > 1:
            # About the moving mean, which all replicas share, the squares are small and little cancels.
            centre = tf.stop_gradient(tf.cast(self.moving_mean, dtype))
            offset = mean - centre
            offset, square = tf.unstack(mean_over_replicas(tf.stack([offset, variance + tf.square(offset)])))
            mean = centre + offset
            variance = tf.nn.relu(square - tf.square(offset))
            count *= replicas()
        return mean, variance, variance * (count / tf.maximum(count - 1, 1))

    def _update(self, moving, batch):
        old = tf.cast(moving, batch.dtype)
        moving.assign(tf.cast(old * self.momentum + batch * (1 - self.momentum), moving.dtype))


def _can_fuse(inputs):
    return inputs.shape.rank == 4 and inputs.dtype in _FUSED_DTYPES
