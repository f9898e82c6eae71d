"""From a network's graph to an ONNX file, by tf2onnx."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.runtimes.model_file import INPUT, METADATA_KEY, output_names

# Runtimes of 2022 and later have it, onnxruntime-web too.
_OPSET = 17


def check_converter(precision: str) -> None:
    """Raises ImportError where tf2onnx or what loads its files again is missing."""
    _packages()


def write(
    graph_def: tf.compat.v1.GraphDef, metadata: ModelMetadata, path: Path, calibration: Sequence[np.ndarray] = ()
) -> None:
    """Writes an ``.onnx`` file with the metadata in it.

    Args:
        graph_def: see `frozen_graph`.
        metadata: `ModelMetadata`.
        path: the file.
        calibration: has no use here; there is float32 alone.
    """
    onnx, tf2onnx = _packages()
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    outputs = output_names(metadata)
    tensors = {f"{name}:0": name for name in (INPUT, *outputs)}
    model, _ = tf2onnx.convert.from_graph_def(
        _without_erfc(graph_def),
        name="psanet",
        input_names=[f"{INPUT}:0"],
        output_names=[f"{name}:0" for name in outputs],
        opset=_OPSET,
        tensors_to_rename=tensors,
    )
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _without_erfc(graph_def):
    """1 - erf(x) for erfc(x), which TensorFlow's GELU has and ONNX has not; beside 1 the difference is rounding."""
    plain = tf.compat.v1.GraphDef(versions=graph_def.versions)
    for node in graph_def.node:
        new = plain.node.add()
        new.CopyFrom(node)
        if node.op != "Erfc":
            continue
        new.op = "Sub"
        new.input[:] = [f"{node.name}/one", f"{node.name}/erf"]
        plain.node.add(name=f"{node.name}/erf", op="Erf", input=node.input, attr=node.attr)
        one = plain.node.add(name=f"{node.name}/one", op="Const")
        one.attr["dtype"].CopyFrom(node.attr["T"])
        one.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1, tf.as_dtype(node.attr["T"].type)))
    return plain


def _packages():
    with needs_extra("onnx", "an ONNX export"):
        import onnx
        import onnxruntime  # noqa: F401
        import tf2onnx
    return onnx, tf2onnx
