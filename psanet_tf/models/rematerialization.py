"""Calls of a network that forget what is inside its residual blocks and compute it again for the gradient."""

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla as xla_ops

from psanet_tf.keras_api import keras
from psanet_tf.layers.batch_normalization import keep_statistics
from psanet_tf.models.resnet import is_end_of_block
from psanet_tf.ops.compiling import traced_for_xla


class BlockwiseCall:
    """A network's forward pass, block by block: between the passes, only what enters a block is kept.

    (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, with residual blocks as the segments.) Values
    and gradients are those of the usual call; moving statistics are updated in the forward pass alone.

    Args:
        model: functional model whose residual blocks end in layers called ``layer<stage>_<block>_out``.
    """

    def __init__(self, model: keras.Model) -> None:
        ends = [layer.output for layer in model.layers if is_end_of_block(layer.name)]
        # What comes after the blocks takes the images too (for their size), and the last but one stage.
        begin = model.get_layer("stem_pool").output
        self._stem = keras.Model(model.inputs[0], begin)
        self._blocks = [keras.Model(before, after) for before, after in zip([begin, *ends[:-1]], ends, strict=True)]
        aux = model.get_layer("aux_conv").input
        self._aux_block = next(index for index, end in enumerate(ends) if end is aux)
        self._heads = keras.Model([model.inputs[0], aux, ends[-1]], model.output)

    def __call__(self, images: tf.Tensor, training: bool | None) -> dict[str, tf.Tensor]:
        x = self._stem(images, training=training)
        for index, block in enumerate(self._blocks):
            x = recomputed(block, x, training)
            if index == self._aux_block:
                aux = x
        return self._heads([images, aux, x], training=training)


def recomputed(block: keras.Model, x: tf.Tensor, training: bool | None) -> tf.Tensor:
    """`block(x, training=training)`, which is called again when the gradient is asked for."""

    # `tf.recompute_grad` does not do here: TensorFlow's graph optimizer folds away what holds its second pass back,
    # finds the two passes equal, and keeps the values of the first one.
    @tf.custom_gradient
    def run(x):
        def gradient(upstream, variables=()):
            again = _behind(x, upstream)
            with tf.GradientTape() as tape, keep_statistics():
                tape.watch([again, *variables])
                outputs = block(again, training=training)
            of_inputs, *of_variables = tape.gradient(outputs, [again, *variables], upstream)
            return (of_inputs, of_variables) if variables else of_inputs

        return block(x, training=training), gradient

    return run(x)


def _behind(x, other):
    """`x`, available once `other` is."""
    if traced_for_xla():
        return xla_ops.optimization_barrier(x, other)[0]
    with tf.control_dependencies([other]):
        return tf.identity(x)
