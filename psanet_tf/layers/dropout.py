"""Spatial dropout whose masks differ from replica to replica."""

import tensorflow as tf

from psanet_tf.keras_api import LEGACY_KERAS, keras
from psanet_tf.layers.replicas import replica_id, replicas


@keras.saving.register_keras_serializable("psanet_tf")
class SpatialDropout2D(keras.layers.SpatialDropout2D):
    """`keras.layers.SpatialDropout2D` that draws a mask of its own on every replica.

    Under a `tf.distribute` strategy all replicas hold the same state of the random numbers, so Keras 3 drops the same
    channels of the first image of every replica, of the second, and so on. Here the replica's number goes into the
    seed. On one replica it is Keras's layer, number for number.

    Args:
        rate: share of the channels that are set to zero; the others are divided by 1 - rate.
        **kwargs: see `keras.layers.SpatialDropout2D`.

    Call arguments:
        inputs: [N, H, W, C].
        training: whether to drop anything.

    Returns:
        Tensor like `inputs`.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        # Legacy Keras's generator differs between replicas by itself.
        if LEGACY_KERAS or replicas() == 1 or not training or self.rate == 0:
            return super().call(inputs, training=training)
        # The kernels take seeds of int32; Keras brings its int64 into that range in the same way.
        seed = tf.cast(tf.math.floormod(self.seed_generator.next(), tf.int32.max - 1), tf.int32)
        seed = tf.random.experimental.stateless_fold_in(seed, replica_id())
        n, _, _, channels = tf.unstack(tf.shape(inputs))
        return tf.nn.experimental.stateless_dropout(
            inputs, rate=self.rate, seed=seed, noise_shape=tf.stack([n, 1, 1, channels])
        )
