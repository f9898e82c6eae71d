"""A network as one graph of constants, from stored pixels to labels: what becomes a file for other programs."""

import tensorflow as tf

from psanet_tf.export.folding import ParameterPool, fold_batch_norm, reachable
from psanet_tf.export.graph.protocols import pads_images
from psanet_tf.export.graph.whole import pad_to_stride
from psanet_tf.inference.attention import attention_grid
from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet
from psanet_tf.ops.portable import portable_operations
from psanet_tf.ops.psa_attention import seen_attention
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.runtimes.model_file import IMAGE_BOX, INPUT, output_names
from psanet_tf.weights.calibration import tempered


def pads_own_images(network: PSANet, metadata: ModelMetadata) -> bool:
    """Whether the graph pads images to 8n + 1 rows and columns: of any size, where the protocol would do so."""
    return metadata.input_size is None and metadata.protocol != "mmseg" and pads_images(network)


def frozen_graph(network: PSANet, metadata: ModelMetadata, batch: int | None = None) -> tf.compat.v1.GraphDef:
    """The graph of a network, in operations that other programs have; normalizations are folded.

    Its input and outputs are those of `ModelFile`; a network of any size pads images where its protocol does. Within
    `portable_operations` the attention is always taken as a whole: its matrices are there anyway, and only get a name.

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
    pool = ParameterPool()
    trace = tf.function(
        _network_outputs(network, metadata), [tf.TensorSpec(shape, tf.float32, name="inputs")], autograph=False
    )
    with portable_operations():
        folded = fold_batch_norm(trace.get_concrete_function(), pool, dilate=True)
    values = {key: variable.numpy() for key, variable in pool.items()}
    grid = None
    if metadata.directions and size is not None:
        # Of one size it is constant, and nobody need compute it.
        grid = tf.stack(attention_grid(network, size, network.feature_size(size))[1:]).numpy()
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(images.dtype, shape, name=INPUT)
        # Not `ImageFormat.normalize`, whose broadcast is for TensorFlow's kernels.
        inputs = (tf.cast(pixels, tf.float32) - images.fill) / images.scale
        padded = pads_own_images(network, metadata)
        seen = pad_to_stride(inputs) if padded else inputs
        found = folded(seen, lambda key: tf.constant(values[key]))
        logits = found["logits"]
        if padded:
            logits = logits[:, : tf.shape(pixels)[1], : tf.shape(pixels)[2]]
        probabilities = tf.nn.softmax(logits)
        answers = {
            "labels": tf.cast(tf.argmax(logits, -1, tf.int32), tf.uint8),
            "scores": tf.cast(tf.round(255 * tf.reduce_max(probabilities, axis=-1)), tf.uint8),
            "probabilities": probabilities,
        }
        if metadata.directions:
            first, step = tf.unstack(found["grid"] if grid is None else tf.constant(grid))
            edges = [-0.5, tf.cast(size or tf.shape(pixels)[1:3], tf.float64) - 0.5]
            box = tf.concat([(edge - first) / step for edge in edges], axis=0)
            answers[IMAGE_BOX] = tf.tile(tf.cast(box, tf.float32)[None], tf.stack([tf.shape(pixels)[0], 1]))
            answers |= {direction: found[direction] for direction in metadata.directions}
        for name in output_names(metadata):
            tf.identity(answers[name], name=name)
    # OpenVINO takes a node that nobody needs for one more output.
    return reachable(graph.as_graph_def(), output_names(metadata))


def _network_outputs(network, metadata):
    """normalized images -> {"logits": ...}, with attention {direction: [B, h, w, h, w]} too.

    Of a network of any size there is "grid" beside, float64 [2, 2]: first and step of `attention_grid`. It belongs into
    this function: in a `tf.Graph` a comparison of tensors by == is one of Python's objects.
    """
    outputs = {"logits": network.get_layer("logits").output}
    if metadata.directions and metadata.input_size is None:
        outputs["features"] = network.get_layer("psa").input
    model = keras.Model(network.inputs[0], outputs)

    def run(inputs):
        with seen_attention() as matrices:
            answer = model(inputs, training=False)
        found = {"logits": tempered(answer["logits"], metadata.temperature), **matrices}
        if "features" in answer:
            sizes = [tf.unstack(tf.shape(tensor)[1:3]) for tensor in (inputs, answer["features"])]
            found["grid"] = tf.stack(attention_grid(network, *sizes)[1:])
        return found

    return run
