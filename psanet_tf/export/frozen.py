"""A network as one graph of constants, from stored pixels to labels: what becomes a file for other programs."""

import tensorflow as tf

from psanet_tf.export.folding import ParameterPool, fold_batch_norm
from psanet_tf.export.graph.protocols import pads_images
from psanet_tf.export.graph.whole import pad_to_stride
from psanet_tf.models import PSANet
from psanet_tf.ops.portable import portable_operations
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.runtimes.model_file import INPUT, OUTPUTS
from psanet_tf.weights.calibration import tempered


def pads_own_images(network: PSANet, metadata: ModelMetadata) -> bool:
    """Whether the graph pads images to 8n + 1 rows and columns: of any size, where the protocol would do so."""
    return metadata.input_size is None and metadata.protocol != "mmseg" and pads_images(network)


def frozen_graph(network: PSANet, metadata: ModelMetadata, batch: int | None = None) -> tf.compat.v1.GraphDef:
    """The graph of a network, in operations that other programs have; normalizations are folded.

    Its input and outputs are those of `ModelFile`; a network of any size pads images where its protocol does.

    Args:
        network: `PSANet` in float32, for any size where the metadata say so.
        metadata: `ModelMetadata`.
        batch: B; None for any.

    Returns:
        `GraphDef` of stock operations without variables, functions and loops, whose nodes for input and outputs have
        their names.
    """
    images, size = metadata.images, metadata.input_size
    shape = [batch, *(size or (None, None)), images.channels]
    inference = network.inference()
    pool = ParameterPool()
    trace = tf.function(
        lambda inputs: {"logits": tempered(inference(inputs, training=False), metadata.temperature)},
        [tf.TensorSpec(shape, tf.float32, name="inputs")],
        autograph=False,
    )
    with portable_operations():
        folded = fold_batch_norm(trace.get_concrete_function(), pool, dilate=True)
    values = {key: variable.numpy() for key, variable in pool.items()}
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(images.dtype, shape, name=INPUT)
        # Not `ImageFormat.normalize`, whose broadcast is for TensorFlow's kernels.
        inputs = (tf.cast(pixels, tf.float32) - images.fill) / images.scale
        padded = pads_own_images(network, metadata)
        logits = folded(pad_to_stride(inputs) if padded else inputs, lambda key: tf.constant(values[key]))["logits"]
        if padded:
            logits = logits[:, : tf.shape(pixels)[1], : tf.shape(pixels)[2]]
        probabilities = tf.nn.softmax(logits)
        answers = {
            "labels": tf.cast(tf.argmax(logits, -1, tf.int32), tf.uint8),
            "scores": tf.cast(tf.round(255 * tf.reduce_max(probabilities, axis=-1)), tf.uint8),
            "probabilities": probabilities,
        }
        for name in OUTPUTS:
            tf.identity(answers[name], name=name)
    return graph.as_graph_def()
