"""Writes the requests that a server runs before a new version takes real ones."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from psanet_tf.data.stored_values import npy_bytes
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.runtimes.protos import serving_apis
from psanet_tf.runtimes.saved_model import Signature
from psanet_tf.runtimes.warmup import FILE

# For models whose signature leaves the size open.
_ANY_SIZE = 65


def write_warm_up(path: str | os.PathLike, signatures: Mapping[str, Signature], metadata: ModelMetadata) -> None:
    """Writes one record per signature, small: images are black.

    Args:
        path: folder of the SavedModel.
        signatures: signature name -> `Signature`.
        metadata: `ModelMetadata`.

    Raises:
        ImportError: tensorflow-serving-api is not installed.
    """
    apis = serving_apis()
    target = Path(path) / FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    size = metadata.input_size or (_ANY_SIZE, _ANY_SIZE)
    black = np.zeros((*size, metadata.channels), metadata.dtype)
    encoded = tf.io.encode_jpeg(black).numpy() if metadata.images.is_photograph else npy_bytes(black)
    examples = {
        "images": _black_images(black),
        "image_bytes": tf.make_tensor_proto([encoded]),
        "points": tf.make_tensor_proto(np.zeros((1, 1, 2), np.float32)),
        "keys": tf.make_tensor_proto([b"all"]),
    }
    with tf.io.TFRecordWriter(str(target)) as writer:
        for name, signature in sorted(signatures.items()):
            log = apis.prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = name
            for key in signature.inputs:
                request.inputs[key].CopyFrom(examples[key])
            writer.write(log.SerializeToString())


def _black_images(black):
    """[1, H, W, C] of zeros, in a few bytes: a tensor's last value stands for those that are not there."""
    proto = tf.make_tensor_proto(np.zeros(1, black.dtype), shape=[1])
    proto.tensor_shape.CopyFrom(tf.TensorShape([1, *black.shape]).as_proto())
    proto.ClearField("tensor_content")
    values = proto.float_val if black.dtype == np.float32 else proto.int_val
    values[:] = [0]
    return proto
