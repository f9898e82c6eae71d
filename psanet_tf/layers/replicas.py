"""What layers know of the replicas of a `tf.distribute` strategy, and a mean over them for large graphs."""

from collections.abc import Callable

import tensorflow as tf


@tf.custom_gradient
def mean_over_replicas(value: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
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


def replicas() -> int:
    """How many replicas there are; 1 without a strategy and outside its replicas."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def replica_id() -> int | tf.Tensor:
    """The number of this replica among those of all machines, 0 without a strategy and outside its replicas."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group
