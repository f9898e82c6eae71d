"""Requests wait in one queue for the model, which answers them one after the other."""

import collections
import logging
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.saved_model import Signature
from psanet_tf.serving.server.servable import Servable

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Request:
    servable: Servable
    signature: Signature
    inputs: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    deadline: float | None
    future: Future = field(default_factory=Future)


class RequestQueue:
    """One thread that runs requests in the order in which they came.

    On a CPU one call of the network keeps all cores busy: calls at the same time, or several requests in one call,
    would gain nothing, and one damaged image would fail its neighbours. How many may wait is up to who submits them:
    `Inference.admitted` counts those that are under way.
    """

    def __init__(self) -> None:
        self._waiting = collections.deque()
        self._condition = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Number of requests that wait; the one that runs is not among them."""
        with self._condition:
            return len(self._waiting)

    def submit(
        self,
        servable: Servable,
        signature: Signature,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str] = (),
        deadline: float | None = None,
    ) -> Future:
        """Queues a request whose inputs have been checked.

        Args:
            servable: the `Servable` to run, kept loaded until the future is done.
            signature: one of its `Signature`s.
            inputs: input name -> array.
            outputs: names of the outputs wanted, all of them if empty.
            deadline: `time.monotonic()` at which nobody waits for the answer any more.

        Returns:
            `concurrent.futures.Future` of a dict output name -> array. Cancelled before its turn, the request leaves
            the queue at once and never runs.

        Raises:
            ServingError: UNAVAILABLE, the server stops.
        """
        request = _Request(servable, signature, inputs, tuple(outputs), deadline)
        with self._condition:
            if self._stopping:
                raise ServingError("UNAVAILABLE", "the server is shutting down")
            servable.acquire()
            self._waiting.append(request)
            self._condition.notify()
        # Not the request itself, which has the future: what holds each other stays until a full garbage collection.
        reference = weakref.ref(request)
        request.future.add_done_callback(lambda future: self._forget(reference()) if future.cancelled() else None)
        return request.future

    def stop(self, seconds: float | None = None) -> bool:
        """Answers what is queued, then ends the thread; returns whether it has ended within `seconds`."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _forget(self, request):
        with self._condition:
            if request not in self._waiting:
                return  # the thread has it, and releases its servable
            self._waiting.remove(request)
        request.servable.release()

    def _work(self):
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._stopping)
                if not self._waiting:
                    return
                request = self._waiting.popleft()
            try:
                try:
                    self._answer(request)
                finally:
                    request.servable.release()
            except BaseException:
                # What is called back with an answer may raise anything; the next request must not suffer for it.
                logger.exception("the answer to a request was not taken")
            del request  # its arrays would stay until the next one comes

    def _answer(self, request):
        # From here on a future cannot be cancelled any more, so that it takes a result or an error.
        if not request.future.set_running_or_notify_cancel():
            return
        try:
            outputs = self._run(request)
        except Exception as error:
            request.future.set_exception(error)
        except BaseException as error:
            request.future.set_exception(ServingError("INTERNAL", f"the model's thread got {type(error).__name__}"))
        else:
            request.future.set_result(outputs)

    def _run(self, request):
        seconds = None if request.deadline is None else request.deadline - time.monotonic()
        if seconds is not None and seconds <= 0:
            raise ServingError("DEADLINE_EXCEEDED", "the deadline passed before the request could be run")
        return request.servable.run(request.signature.name, request.inputs, request.outputs, seconds)
