"""What both protocols of the embedded server do with a request: find the version, check, queue, answer."""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from psanet_tf.runtimes.errors import ServingError, invalid_argument
from psanet_tf.runtimes.saved_model import Signature
from psanet_tf.serving.server.batching import Batcher
from psanet_tf.serving.server.servable import Servable
from psanet_tf.serving.server.versions import VersionManager


@dataclass(frozen=True)
class ModelSpec:
    """Which model a request means; neither version nor label: the newest version."""

    name: str
    version: int | None = None
    label: str | None = None


class Inference:
    """Answers requests for one model.

    Args:
        versions: `VersionManager`.
        batcher: `Batcher`.
        max_concurrent_requests: further requests are refused as UNAVAILABLE, which clients may try again.
    """

    def __init__(self, versions: VersionManager, batcher: Batcher, max_concurrent_requests: int = 64) -> None:
        if max_concurrent_requests < 1:
            raise ValueError(f"max_concurrent_requests must be at least 1, got {max_concurrent_requests}")
        self.versions = versions
        self._batcher = batcher
        self._limit = max_concurrent_requests
        self._lock = threading.Lock()
        self._current = 0

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request for the length of the block.

        Raises:
            ServingError: UNAVAILABLE, too many at the same time.
        """
        with self._lock:
            if self._current >= self._limit:
                raise ServingError("UNAVAILABLE", f"more than {self._limit} requests at the same time; try again later")
            self._current += 1
        try:
            yield
        finally:
            with self._lock:
                self._current -= 1

    def use(self, spec: ModelSpec) -> contextlib.AbstractContextManager[Servable]:
        """Context manager: the `Servable` for a `ModelSpec`."""
        return self.versions.use(spec.name, spec.version, spec.label)

    def submit(
        self,
        servable: Servable,
        signature_name: str | None,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str] = (),
        deadline: float | None = None,
    ) -> Future:
        """Checks and queues a request; see `Batcher.submit`."""
        signature = servable.signature(signature_name)
        check_inputs(signature, inputs)
        unknown = [name for name in outputs if name not in signature.outputs]
        if unknown:
            raise ServingError(
                "INVALID_ARGUMENT",
                f"output tensor alias not found in signature: {unknown[0]} "
                f"Outputs expected to be in the set {{{','.join(sorted(signature.outputs))}}}.",
            )
        if len(set(outputs)) != len(outputs):
            raise ServingError("INVALID_ARGUMENT", f"duplicate output tensor alias in {list(outputs)}")
        return self._batcher.submit(servable, signature, inputs, outputs, deadline)


def check_inputs(signature: Signature, inputs: Mapping[str, np.ndarray]) -> None:
    """Compares names, dtypes and shapes of `inputs` (name -> array) with what the signature takes.

    Raises:
        ServingError: INVALID_ARGUMENT, naming every difference in TensorFlow Serving's words.
    """
    extra = sorted(set(inputs) - set(signature.inputs))
    missing = sorted(set(signature.inputs) - set(inputs))
    if extra or missing:
        raise invalid_argument(
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} "
            f"len({{{','.join(sorted(inputs))}}}) != len({{{','.join(sorted(signature.inputs))}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )
    for name, spec in signature.inputs.items():
        array = inputs[name]
        dtype = tf.string if array.dtype.kind in "OSU" else tf.as_dtype(array.dtype)
        if dtype != spec.dtype or not spec.accepts(array.shape):
            shape = ",".join(map(str, array.shape))
            raise invalid_argument(f"input {name} must be {spec} (-1: any length), got {dtype.name} [{shape}]")
        if array.size == 0:
            raise invalid_argument(f"input {name} is empty: its shape is [{','.join(map(str, array.shape))}]")
