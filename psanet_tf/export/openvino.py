"""From a network's graph to OpenVINO's IR."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.runtimes.model_file import INPUT, output_names
from psanet_tf.runtimes.openvino import RT_INFO


def check_converter(precision: str) -> None:
    """Raises ImportError where OpenVINO, or for int8 its compression framework, is missing."""
    _openvino()
    if precision == "int8":
        _nncf()


def write(
    graph_def: tf.compat.v1.GraphDef, metadata: ModelMetadata, path: Path, calibration: Sequence[np.ndarray] = ()
) -> None:
    """Writes an ``.xml`` file with the metadata in it, and the weights into the ``.bin`` file beside it.

    Args:
        graph_def: see `frozen_graph`.
        metadata: `ModelMetadata`, which says the precision: "float32"; "float16" stores the weights as such; "int8" has
            convolutions of 8-bit integers, the attention stays as it is.
        path: the file.
        calibration: for int8: images [H, W, C] that the ranges of activations are taken from.
    """
    openvino = _openvino()
    with tempfile.TemporaryDirectory() as folder:
        # From a file OpenVINO reads it by itself, without TensorFlow.
        frozen = Path(folder) / "frozen.pb"
        frozen.write_bytes(graph_def.SerializeToString())
        model = openvino.convert_model(frozen, share_weights=False)
    (source,) = model.inputs
    source.get_node().set_friendly_name(INPUT)
    source.get_tensor().set_names({INPUT})
    for output in model.outputs:
        # A graph's outputs have the names of its nodes.
        (name,) = {name.split(":")[0] for name in output.get_names()} & set(output_names(metadata))
        output.get_tensor().set_names({name})
    if metadata.precision == "int8":
        model = _quantized(model, calibration)
    model.set_rt_info(metadata.to_json(), RT_INFO)
    openvino.save_model(model, path, compress_to_fp16=metadata.precision == "float16")


def _quantized(model, calibration):
    nncf = _nncf()
    nncf.set_log_level(logging.ERROR)
    return nncf.quantize(
        model,
        nncf.Dataset([image[None] for image in calibration]),
        subset_size=len(calibration),
        preset=nncf.QuantizationPreset.MIXED,
        # A weight of one position in thousands is far below the step of 8 bits.
        ignored_scope=nncf.IgnoredScope(types=["MatMul", "Softmax", "ReduceMax"], validate=False),
    )


def _openvino():
    with needs_extra("openvino", "an OpenVINO export"):
        import openvino
    return openvino


def _nncf():
    with needs_extra("openvino-int8", "an OpenVINO export in int8"):
        import nncf
    return nncf
