"""What both protocols of the embedded server do with a request: find the version, check, queue, wait."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from psanet_tf.runtimes.errors import ServingError, invalid_argument
from psanet_tf.runtimes.saved_model import Signature, lengths
from psanet_tf.serving.server.request_queue import RequestQueue
from psanet_tf.serving.server.servable import Servable
from psanet_tf.serving.server.versions import VersionManager

# Nobody waits longer for an answer, whatever deadline a request has.
LONGEST_SECONDS = 300.0
# Another shape than the signature's is the graph's business, as in TensorFlow Serving; but one request with an image of
# ten times the size may take a hundred times the memory and end the process.
_LARGEST_OTHER_SHAPE = 1_000_000
# Names that an error lists; a message may have a million.
_MOST_NAMES = 100
_NOT_ABOUT_VALUES = ("CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE")


@dataclass(frozen=True)
class ModelSpec:
    """Which model a request means; neither version nor label: the newest version."""

    name: str
    version: int | None = None
    label: str | None = None


class Inference:
    """Answers requests for one model, in an event loop.

    Args:
        versions: `VersionManager`.
        queue: `RequestQueue`.
        max_concurrent_requests: further requests are refused as UNAVAILABLE, which clients may try again.
    """

    def __init__(self, versions: VersionManager, queue: RequestQueue, max_concurrent_requests: int) -> None:
        self.versions = versions
        self.queue = queue
        self._limit = max_concurrent_requests
        self._current = 0

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request, whose body has arrived, for the length of the block.

        Raises:
            ServingError: UNAVAILABLE, too many at the same time.
        """
        if self._current >= self._limit:
            raise ServingError("UNAVAILABLE", f"more than {self._limit} requests at the same time; try again later")
        self._current += 1
        try:
            yield
        finally:
            self._current -= 1

    def use(self, spec: ModelSpec) -> contextlib.AbstractContextManager[Servable]:
        """Context manager: the `Servable` for a `ModelSpec`."""
        return self.versions.use(spec.name, spec.version, spec.label)

    async def answer(
        self,
        servable: Servable,
        signature: Signature,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str] = (),
        seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Output name -> array. Where the task that waits here is cancelled, the request never starts.

        Args:
            servable: in use by the caller.
            signature: one of its `Signature`s.
            inputs: input name -> array.
            outputs: names of the outputs wanted, all of them if empty.
            seconds: how long the sender waits; more than `LONGEST_SECONDS` counts as that.

        Raises:
            ServingError: wrong inputs, a server that stops, what the graph says, or DEADLINE_EXCEEDED.
        """
        seconds = LONGEST_SECONDS if seconds is None else min(seconds, LONGEST_SECONDS)
        check_inputs(signature, inputs)
        check_outputs(signature, outputs)
        future = self.queue.submit(servable, signature, inputs, outputs, time.monotonic() + seconds)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except (TimeoutError, asyncio.TimeoutError):  # one and the same from Python 3.11 on
            raise ServingError("DEADLINE_EXCEEDED", f"no answer within {seconds:g} seconds") from None
        except ServingError as error:
            raise _with_expected_shapes(error, signature, inputs) from None


def check_names(signature: Signature, names: Collection[str]) -> None:
    """Compares the names of inputs with those of the signature.

    Raises:
        ServingError: INVALID_ARGUMENT, naming every difference in TensorFlow Serving's words.
    """
    difference = f"input size does not match signature: {len(names)}!={len(signature.inputs)}"
    if len(names) > max(_MOST_NAMES, len(signature.inputs)):
        raise invalid_argument(difference)
    extra = sorted(set(names) - set(signature.inputs))
    missing = sorted(set(signature.inputs) - set(names))
    if extra or missing:
        raise invalid_argument(
            f"{difference} len({{{','.join(sorted(names))}}}) != len({{{','.join(sorted(signature.inputs))}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )


def check_inputs(signature: Signature, inputs: Mapping[str, np.ndarray]) -> None:
    """Compares names and dtypes of `inputs` (name -> array) with what the signature takes.

    Raises:
        ServingError: INVALID_ARGUMENT: see `check_names`; an empty array, which TensorFlow's kernels for CPUs may crash
            on; a large array of another shape than the signature's.
    """
    check_names(signature, inputs)
    for name, spec in signature.inputs.items():
        array = inputs[name]
        too_large = array.size > _LARGEST_OTHER_SHAPE and not spec.accepts(array.shape)
        if _dtype(array) != spec.dtype or too_large:
            raise invalid_argument(_expected(name, spec, array))
        if array.size == 0:
            raise invalid_argument(f"input {name} is empty: its shape is {lengths(array.shape)}")


def check_outputs(signature: Signature, outputs: Sequence[str]) -> None:
    """Compares names of outputs with those of the signature.

    Raises:
        ServingError: INVALID_ARGUMENT, one that is not there, or one twice.
    """
    for index, name in enumerate(outputs):
        if name not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {{{','.join(sorted(signature.outputs))}}}."
            )
        if name in outputs[:index]:
            raise invalid_argument(f"duplicate output tensor alias: {name}")


def _with_expected_shapes(error, signature, inputs):
    """What the graph says of a shape that is not the signature's begins with what the signature says."""
    specs = signature.inputs.items()
    other = [_expected(name, spec, inputs[name]) for name, spec in specs if not spec.accepts(inputs[name].shape)]
    if error.code in _NOT_ABOUT_VALUES or not other:
        return error
    return invalid_argument(f"{'; '.join(other)}; the graph says: {error.message}")


def _expected(name, spec, array):
    return f"input {name} must be {spec} (-1: any length), got {_dtype(array).name} {lengths(array.shape)}"


def _dtype(array):
    return tf.string if array.dtype.kind in "OSU" else tf.as_dtype(array.dtype)
