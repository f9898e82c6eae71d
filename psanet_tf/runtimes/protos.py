"""TensorFlow Serving's messages and services, from the package tensorflow-serving-api (extra ``serving``)."""

import importlib
import types

import numpy as np
import tensorflow as tf
from google.protobuf.message import Message

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import invalid_argument

_MODULES = (
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "model_management_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
)
_POINTER_BYTES = 8


def serving_apis(purpose: str = "TensorFlow Serving's protocol") -> types.SimpleNamespace:
    """The message and service modules of tensorflow-serving-api, as one namespace.

    Args:
        purpose: what needs them, for the error message.

    Raises:
        ImportError: the package is not installed.
    """
    with needs_extra("serving", purpose):
        modules = {name: importlib.import_module(f"tensorflow_serving.apis.{name}") for name in _MODULES}
    return types.SimpleNamespace(**modules)


def to_array(proto: Message, max_bytes: float, name: str) -> np.ndarray:
    """The array in a `TensorProto`.

    Args:
        proto: from a request.
        max_bytes: a message may say a large shape and hold one value for all of it; more memory than this is
            not handed out.
        name: of the input, for error messages.

    Raises:
        ServingError: INVALID_ARGUMENT, values and shape do not fit.
    """
    try:
        dtype = tf.as_dtype(proto.dtype)
        shape = [dim.size for dim in proto.tensor_shape.dim]
        size = _POINTER_BYTES if dtype == tf.string else dtype.size
        if min(shape, default=1) < 0 or np.prod(shape, dtype=float) * size > max_bytes:
            raise invalid_argument(f"input {name}: a tensor of shape {shape} is larger than {max_bytes} bytes")
        return tf.make_ndarray(proto)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise invalid_argument(f"input {name} is no valid tensor: {error}") from None


def to_proto(array: np.ndarray) -> Message:
    """`TensorProto` of an array."""
    return tf.make_tensor_proto(array)
