"""From a network's graph to a LiteRT (TensorFlow Lite) file."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import flatbuffers
import numpy as np
import tensorflow as tf

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.runtimes.model_file import INPUT, METADATA_KEY, output_names

# In 8 bits a softmax has steps of 1 / 256: the weights of one position in thousands would all be 0.
_NOT_IN_INT8 = ["SOFTMAX", "BATCH_MATMUL", "FULLY_CONNECTED"]


def check_converter(precision: str) -> None:
    """Raises ImportError where what loads the file again is missing; the converter is TensorFlow's."""
    _schema()


def write(
    graph_def: tf.compat.v1.GraphDef, metadata: ModelMetadata, path: Path, calibration: Sequence[np.ndarray] = ()
) -> None:
    """Writes a ``.tflite`` file with the metadata in it.

    Args:
        graph_def: see `frozen_graph`, for one image.
        metadata: `ModelMetadata`, which says the precision: "float32"; "float16" stores the weights as such; "int8" has
            convolutions of 8-bit integers, the attention and what has no such kernel stay as they are.
        path: the file.
        calibration: for int8: images [H, W, C] that the ranges of activations are taken from.
    """
    shape = [1, *metadata.input_size, metadata.channels]
    spec = tf.TensorSpec(shape, metadata.dtype, name=INPUT)
    names = output_names(metadata)

    def run(images):
        tensors = [f"{name}:0" for name in names]
        answers = tf.graph_util.import_graph_def(graph_def, {f"{INPUT}:0": images}, tensors, name="psanet")
        return dict(zip(names, answers, strict=True))

    module = tf.Module()
    module.run = tf.function(run, [spec], autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.run.get_concrete_function()], module)
    content = _converted(converter, metadata.precision, calibration)
    path.write_bytes(_with_metadata(content, metadata.to_json()))


def _converted(converter, precision, calibration):
    if precision == "float32":
        return converter.convert()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
        return converter.convert()

    def images():
        for image in calibration:
            yield [image[None]]

    converter.representative_dataset = images
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=_NOT_IN_INT8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own interpreter says that it is deprecated
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=images, debug_options=options
        )
        return debugger.get_nondebug_quantized_model()


def _with_metadata(content, text):
    """The file with a buffer of its own for `text`, which an entry of its metadata names."""
    schema = _schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = METADATA_KEY, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content) + len(text))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _schema():
    with needs_extra("litert", "a LiteRT export"):
        import ai_edge_litert.interpreter  # noqa: F401
        from ai_edge_litert import schema_py_generated
    return schema_py_generated
