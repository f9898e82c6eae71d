"""A SavedModel run the way TensorFlow Serving runs it: a session over its graph."""

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from psanet_tf.ops.op_library import load_op_library
from psanet_tf.runtimes.errors import ServingError, from_tensorflow

DEFAULT_SIGNATURE = "serving_default"
# Signatures that a SavedModel carries for TensorFlow itself.
_INTERNAL_SIGNATURES = ("__saved_model_init_op", "__saved_model_train_op")


@dataclass(frozen=True)
class TensorSpec:
    """What a signature says of one tensor; -1 in `shape` is any length, `shape` None any rank."""

    tensor_name: str
    dtype: tf.DType
    shape: tuple[int, ...] | None

    def accepts(self, shape: Sequence[int]) -> bool:
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.dtype.name} {'[?]' if self.shape is None else lengths(self.shape)}"


def lengths(shape: Sequence[int]) -> str:
    """A shape as messages have it: ``"[1,33,33,3]"``."""
    return f"[{','.join(map(str, shape))}]"


@dataclass(frozen=True)
class Signature:
    name: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    method_name: str


class SavedModelSession:
    """A SavedModel in memory. Thread-safe.

    Args:
        path: folder with `saved_model.pb`.

    Attributes:
        signature_defs: signature name -> `SignatureDef`, all that the SavedModel has.
        signatures: signature name -> `Signature`, without those that TensorFlow keeps for itself.

    Raises:
        ServingError: the folder holds no model that this TensorFlow can load.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._tensors = {}
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        try:
            _load_custom_ops(path)
            with self._session.graph.as_default(), _without_deprecation_warning():
                meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
        except tf.errors.OpError as error:
            self._session.close()
            raise from_tensorflow(error) from error
        except (OSError, ValueError, RuntimeError, DecodeError) as error:
            self._session.close()
            raise ServingError("FAILED_PRECONDITION", f"cannot load {path}: {error}") from error
        self.signature_defs = dict(meta_graph.signature_def)
        self.signatures = {name: _signature(name, item) for name, item in _public(self.signature_defs).items()}

    def signature(self, name: str | None) -> Signature:
        """The signature of that name ("" or None: the default one).

        Raises:
            ServingError: FAILED_PRECONDITION, there is none.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            known = ", ".join(sorted(self.signatures))
            raise ServingError(
                "FAILED_PRECONDITION", f'Serving signature key "{name}" not found; the model has {known}'
            )
        return self.signatures[name]

    def run(
        self,
        signature_name: str | None,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str] = (),
        seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature_name: see `signature`.
            inputs: input name -> array, of the signature's names and dtypes. What the graph makes of other shapes than
                the signature's is up to the graph.
            outputs: names of the outputs wanted, all of them if empty.
            seconds: after which the graph stops, between two operations; default: never.

        Returns:
            dict output name -> array.

        Raises:
            ServingError: the graph refused the values, took longer, or was closed in the middle.
        """
        signature = self.signature(signature_name)
        wanted = tuple(outputs) or tuple(sorted(signature.outputs))
        feeds = {
            self._tensor(spec): np.asarray(inputs[name], spec.dtype.as_numpy_dtype)
            for name, spec in signature.inputs.items()
        }
        fetches = [self._tensor(signature.outputs[name]) for name in wanted]
        options = tf.compat.v1.RunOptions(timeout_in_ms=0 if seconds is None else max(1, int(1000 * seconds)))
        buffer = pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())
        try:
            # Session.run looks at shapes itself, which a model server leaves to the graph.
            values = self._session._call_tf_sessionrun(buffer, feeds, fetches, [], None)
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        finally:
            pywrap_tf_session.TF_DeleteBuffer(buffer)
        return dict(zip(wanted, map(_array, values), strict=True))

    def close(self) -> None:
        """Gives its memory back; what runs then ends with CANCELLED."""
        self._session.close()

    def _tensor(self, spec):
        with self._lock:
            if spec.tensor_name not in self._tensors:
                tensor = self._session.graph.get_tensor_by_name(spec.tensor_name)
                self._tensors[spec.tensor_name] = tensor._as_tf_output()
            return self._tensors[spec.tensor_name]


def signatures_on_disk(path: str | os.PathLike) -> dict[str, Signature]:
    """Signature name -> `Signature` of the SavedModel in the folder `path`, which is not loaded."""
    definitions = _public(_read_meta_graph(path).signature_def)
    return {name: _signature(name, item) for name, item in definitions.items()}


def operations_on_disk(path: str | os.PathLike) -> set[str]:
    """The names of all ops in the graph of the SavedModel in the folder `path`, functions included."""
    graph_def = _read_meta_graph(path).graph_def
    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    functions = {function.signature.name for function in graph_def.library.function}
    return {node.op for node in nodes} - functions


def _read_meta_graph(path):
    content = (Path(path) / "saved_model.pb").read_bytes()
    return saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]


def _load_custom_ops(path):
    """Loads the library of the compiled op if the model calls it; a stock model needs no library."""
    if "PsaMask" in operations_on_disk(path):
        load_op_library()


@contextlib.contextmanager
def _without_deprecation_warning():
    """TensorFlow points to an eager loader; a model server runs sessions, and can give their memory back."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def _array(value):
    """A session's value; one string alone comes as bytes, which NumPy would take for an array of fixed-length ones."""
    return np.array(value, object) if isinstance(value, bytes | str) else np.asarray(value)


def _public(definitions):
    return {name: item for name, item in definitions.items() if name not in _INTERNAL_SIGNATURES}


def _signature(name, definition):
    return Signature(
        name,
        {key: _spec(info) for key, info in definition.inputs.items()},
        {key: _spec(info) for key, info in definition.outputs.items()},
        definition.method_name,
    )


def _spec(info):
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(info.name, tf.as_dtype(info.dtype), shape)
