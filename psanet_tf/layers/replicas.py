"""A mean over the replicas of a `tf.distribute` strategy that large graphs can afford."""

import tensorflow as tf


@tf.custom_gradient
def mean_over_replicas(value):
    """Mean of a tensor over all replicas, differentiable; to be called inside a replica.

    It equals `tf.distribute.ReplicaContext.all_reduce(MEAN, value)`. That searches the graph behind the summed
    values for variables whenever it is called, through all that the other replicas have computed so far: with one
    call per normalization layer, and one more in its gradient, this takes longer than everything else in building
    a training step. A `stop_gradient` ends the search.

    Args:
        value: float tensor of the same shape on every replica.

    Returns:
        Tensor like `value`.
    """
    replica = tf.distribute.get_replica_context()

    def mean(tensor):
        return replica.all_reduce(tf.distribute.ReduceOp.MEAN, tf.stop_gradient(tensor))

    return mean(value), mean
