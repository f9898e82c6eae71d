"""Requests that wait at the same time share one call of the model."""

import collections
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.saved_model import Signature
from psanet_tf.serving.server.servable import Servable


@dataclass(eq=False)
class _Task:
    servable: Servable
    signature: Signature
    inputs: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    deadline: float | None
    rows: int | None
    future: Future = field(default_factory=Future)

    def __post_init__(self):
        shapes = tuple((name, array.dtype.char, array.shape[1:]) for name, array in sorted(self.inputs.items()))
        # Only tasks with equal keys are joined.
        self.key = (id(self.servable), self.signature.name, self.outputs, shapes) if self.rows else id(self)


class Batcher:
    """Worker threads that run queued requests, joined along the batch axis where they fit.

    A free worker takes what waits and never waits for more, so that batching costs a lone request nothing;
    batches grow by themselves when requests come faster than they are answered.

    Args:
        max_batch_size: most rows of one call that joins requests (a single request may have more).
        num_threads: calls that run at the same time.
        max_waiting: requests in the queue before further ones are refused as UNAVAILABLE.
    """

    def __init__(self, max_batch_size: int = 4, num_threads: int = 1, max_waiting: int = 100) -> None:
        for name, value in (
            ("max_batch_size", max_batch_size),
            ("num_threads", num_threads),
            ("max_waiting", max_waiting),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self._max_batch_size = max_batch_size
        self._max_waiting = max_waiting
        self._queue = collections.deque()
        self._condition = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{index}", daemon=True) for index in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

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
            `concurrent.futures.Future` of a dict output name -> array.

        Raises:
            ServingError: UNAVAILABLE, the queue is full or the server stops.
        """
        task = _Task(servable, signature, inputs, tuple(outputs), deadline, _batch_rows(signature, inputs))
        with self._condition:
            if self._stopping:
                raise ServingError("UNAVAILABLE", "the server is shutting down")
            if len(self._queue) >= self._max_waiting:
                raise ServingError(
                    "UNAVAILABLE",
                    "The batch scheduling queue to which this task was submitted is full; try again later",
                )
            servable.acquire()
            self._queue.append(task)
            self._condition.notify()
        return task.future

    def stop(self) -> None:
        """Answers what is queued, then ends the threads."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self):
        while True:
            with self._condition:
                while not self._queue and not self._stopping:
                    self._condition.wait()
                if not self._queue:
                    return
                tasks = self._take_batch()
            self._run(tasks)

    def _take_batch(self):
        first = self._queue.popleft()
        tasks, rows = [first], first.rows or 0
        if first.rows and rows < self._max_batch_size:
            for task in list(self._queue):
                if task.key == first.key and rows + task.rows <= self._max_batch_size:
                    self._queue.remove(task)
                    tasks.append(task)
                    rows += task.rows
        return tasks

    def _run(self, tasks):
        try:
            # From here on a future cannot be cancelled any more, so that it takes a result or an error.
            tasks_left = [task for task in tasks if task.future.set_running_or_notify_cancel()]
            now = time.monotonic()
            in_time = [task for task in tasks_left if task.deadline is None or now <= task.deadline]
            for task in tasks_left:
                if task not in in_time:
                    task.future.set_exception(
                        ServingError("DEADLINE_EXCEEDED", "the deadline passed before the request could be run")
                    )
            if len(in_time) > 1:
                self._run_joined(in_time)
            elif in_time:
                self._run_alone(in_time[0])
        finally:
            for task in tasks:
                task.servable.release()

    def _run_joined(self, tasks):
        first = tasks[0]
        inputs = {name: np.concatenate([task.inputs[name] for task in tasks]) for name in first.inputs}
        try:
            outputs = first.servable.run(first.signature.name, inputs, first.outputs)
        except Exception:
            outputs = {}
        rows = sum(task.rows for task in tasks)
        if not outputs or any(len(array) != rows for array in outputs.values()):
            # One bad request must not fail its neighbours: everyone gets a call and an answer of their own.
            for task in tasks:
                self._run_alone(task)
            return
        start = 0
        for task in tasks:
            rows = slice(start, start + task.rows)
            start += task.rows
            task.future.set_result({name: array[rows] for name, array in outputs.items()})

    def _run_alone(self, task):
        try:
            task.future.set_result(task.servable.run(task.signature.name, task.inputs, task.outputs))
        except Exception as error:
            task.future.set_exception(error)


def _batch_rows(signature: Signature, inputs: Mapping[str, np.ndarray]) -> int | None:
    """The number of rows of a request that may share a call with others; None if it may not."""
    if not signature.batched:
        return None
    lengths = {np.shape(array)[0] for array in inputs.values()}
    return lengths.pop() if len(lengths) == 1 else None
