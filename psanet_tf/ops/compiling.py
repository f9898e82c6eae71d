"""Whether what is being traced is for XLA, which has kernels of its own."""

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext


# AutoGraph would rewrite what only looks about.
@tf.autograph.experimental.do_not_convert
def traced_for_xla() -> bool:
    """Whether the caller is traced in a function with ``jit_compile=True``, or in one that such a function calls."""
    return not tf.executing_eagerly() and GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
