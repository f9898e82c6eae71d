"""Lovász-softmax: a surrogate of the mean IoU itself."""

from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.losses.pixels import PixelLoss, mean_of_replicas, one_hot


@keras.saving.register_keras_serializable(package="psanet_tf")
class LovaszSoftmaxLoss(PixelLoss):
    """Mean over the classes that are present of the Lovász extension of 1 - IoU, over all pixels of the batch.

    Berman, Rannen Triki and Blaschko, "The Lovász-Softmax loss", CVPR 2018, equations 8, 9 and 11, with
    ``classes="present"`` and over the batch (not image by image): the errors of a class's probabilities, |g - p|, are
    sorted, and each is weighted by what the IoU loses with that pixel. A batch without any labelled pixel has loss 0.

    On several replicas: the errors of all pixels would have to be sorted together, which no sum over replicas gives.
    Each replica has the loss of its own pixels, and the mean of the replicas' is weighted by the numbers of their
    labelled pixels. That is not the loss of one device with the whole batch, but of one that takes the losses of its
    parts.

    Call arguments, result and errors are as of every `PixelLoss`: integer labels [B, h, w] and logits [B, h, w, K] give
    a float32 scalar.

    Args:
        ignore_label: label of pixels that do not count.
        name: name of the loss.
    """

    def __init__(self, ignore_label: int = 255, name: str = "lovasz_softmax_loss", **kwargs: Any) -> None:
        super().__init__(ignore_label, name=name, **kwargs)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        labels, logits, valid = self._checked(y_true, y_pred)
        counted = tf.cast(valid, logits.dtype)
        truth = one_hot(labels, valid, logits)
        errors = tf.abs(truth - tf.nn.softmax(logits)) * counted[..., None]
        # The extension is linear in the errors as long as their order stays: the weights are its gradient.
        weights = tf.stop_gradient(_weights(errors, truth, valid))
        present = tf.cast(tf.reduce_any(truth > 0, axis=[0, 1, 2]), logits.dtype)
        losses = present * tf.reduce_sum(errors * weights, axis=[0, 1, 2])
        mean = tf.math.divide_no_nan(tf.reduce_sum(losses), tf.reduce_sum(present))
        labelled = tf.reduce_sum(counted)
        share = tf.math.divide_no_nan(labelled, mean_of_replicas(labelled))
        return self._for_every_image(share * mean, labels, logits)


def _weights(errors, truth, valid):
    """How much the Jaccard loss of each class grows with each pixel's error. Like `errors`, [B, h, w, K]."""
    by_class = [tf.transpose(tf.reshape(values, [-1, values.shape[-1]])) for values in (errors, truth)]
    # What does not count comes after all that does.
    by_class[0] = tf.where(tf.reshape(valid, [1, -1]), by_class[0], -1.0)
    # One class after the other: to sort all at once takes three times the memory of the logits.
    weights = tf.map_fn(_weights_of_class, by_class, fn_output_signature=errors.dtype, parallel_iterations=1)
    return tf.reshape(tf.transpose(weights), tf.shape(errors))


def _weights_of_class(errors_and_truth):
    errors, truth = errors_and_truth
    count = tf.size(errors)
    order = tf.math.top_k(errors, count).indices
    # float64 counts pixels beyond 2^24.
    true = tf.cast(tf.gather(truth, order), tf.float64)
    found = tf.cumsum(true)
    total = tf.reduce_sum(true)
    taken = tf.range(1.0, tf.cast(count, tf.float64) + 1, dtype=tf.float64)
    # After the first i pixels are taken for wrong: intersection total - found, union total + (i - found).
    jaccard = 1 - tf.math.divide_no_nan(total - found, total + taken - found)
    steps = jaccard - tf.concat([tf.zeros([1], tf.float64), jaccard[:-1]], 0)
    # int64: GPUs reshape int32 in the host's memory. No place comes twice.
    places = tf.cast(order, tf.int64)[:, None]
    return tf.scatter_nd(places, tf.cast(steps, errors.dtype), tf.shape(errors, tf.int64))
