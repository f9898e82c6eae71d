"""Joined calls: right rows to the right request, one bad request harms no other."""

import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.runtimes.errors import ServingError, invalid_argument
from psanet_tf.runtimes.saved_model import Signature, TensorSpec
from psanet_tf.serving.server.batching import Batcher

BATCHED = Signature("s", {"x": TensorSpec("x", tf.float32, (-1, 2))}, {"y": TensorSpec("y", tf.float32, (-1, 2))}, "")
ALONE = Signature("s", {"x": TensorSpec("x", tf.float32, (2,))}, {"y": TensorSpec("y", tf.float32, (2,))}, "")


class Recorder:
    """Stands in for a `Servable`: doubles x, refuses negative numbers, and waits while `gate` is closed."""

    def __init__(self):
        self.calls = []
        self.users = 0
        self.gate = threading.Event()

    def acquire(self):
        self.users += 1

    def release(self):
        self.users -= 1

    def run(self, name, inputs, outputs):
        self.gate.wait(5)
        self.calls.append(len(inputs["x"]))
        if inputs["x"].min() < 0:
            raise invalid_argument("negative")
        return {"y": 2 * inputs["x"]}


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def batcher(recorder):
    batcher = Batcher(max_batch_size=4)
    yield batcher
    recorder.gate.set()
    batcher.stop()


def rows(count, value=1.0):
    return {"x": np.full((count, 2), value, np.float32)}


def submit_behind_a_blocked_call(batcher, recorder, requests, signature=BATCHED):
    """Queues `requests` while the worker is busy with a first one; returns their futures once all are done."""
    first = batcher.submit(recorder, ALONE, {"x": np.ones(2, np.float32)})
    while not recorder.users:
        time.sleep(0.001)
    time.sleep(0.02)
    futures = [batcher.submit(recorder, signature, request) for request in requests]
    recorder.gate.set()
    first.result(5)
    return futures


def test_waiting_requests_are_joined_up_to_the_limit(batcher, recorder):
    requests = [rows(1, 1), rows(2, 2), rows(2, 3), rows(1, 4)]
    futures = submit_behind_a_blocked_call(batcher, recorder, requests)
    for request, future in zip(requests, futures, strict=True):
        np.testing.assert_array_equal(future.result(5)["y"], 2 * request["x"])
    # The third does not fit behind the first two; the fourth does.
    assert recorder.calls == [2, 4, 2]
    batcher.stop()
    assert recorder.users == 0


def test_other_shapes_are_not_joined(batcher, recorder):
    requests = [rows(1), {"x": np.ones((1, 3), np.float32)}, rows(1)]
    for future in submit_behind_a_blocked_call(batcher, recorder, requests):
        future.result(5)
    assert recorder.calls == [2, 2, 1]


def test_a_request_larger_than_a_batch_runs_alone(batcher, recorder):
    futures = submit_behind_a_blocked_call(batcher, recorder, [rows(9), rows(1)])
    assert [len(future.result(5)["y"]) for future in futures] == [9, 1]
    assert recorder.calls == [2, 9, 1]


def test_signatures_without_a_batch_axis_run_alone(batcher, recorder):
    requests = [{"x": np.ones(2, np.float32)}] * 2
    for future in submit_behind_a_blocked_call(batcher, recorder, requests, ALONE):
        future.result(5)
    assert recorder.calls == [2, 2, 2]


def test_one_bad_request_fails_alone(batcher, recorder):
    good, bad, other = submit_behind_a_blocked_call(batcher, recorder, [rows(1, 1), rows(1, -1), rows(1, 3)])
    np.testing.assert_array_equal(good.result(5)["y"], [[2, 2]])
    np.testing.assert_array_equal(other.result(5)["y"], [[6, 6]])
    with pytest.raises(ServingError, match="negative"):
        bad.result(5)


def test_what_nobody_waits_for_is_not_run(batcher, recorder):
    first = batcher.submit(recorder, ALONE, {"x": np.ones(2, np.float32)})
    late = batcher.submit(recorder, BATCHED, rows(1), deadline=time.monotonic() - 1)
    recorder.gate.set()
    first.result(5)
    with pytest.raises(ServingError, match="deadline"):
        late.result(5)
    assert recorder.calls == [2]


def test_a_request_that_was_given_up_harms_nobody(batcher, recorder):
    first = batcher.submit(recorder, ALONE, {"x": np.ones(2, np.float32)})
    for deadline in (None, time.monotonic() - 1):
        assert batcher.submit(recorder, BATCHED, rows(1), deadline=deadline).cancel()
    after = batcher.submit(recorder, BATCHED, rows(1))
    recorder.gate.set()
    first.result(5)
    after.result(5)
    assert recorder.calls == [2, 1]
    batcher.stop()
    assert recorder.users == 0


def test_a_full_queue_refuses(recorder):
    batcher = Batcher(max_waiting=1)
    futures, refused = [], []
    for _ in range(5):
        try:
            futures.append(batcher.submit(recorder, BATCHED, rows(1)))
        except ServingError as error:
            refused.append(error.code)
    assert refused and set(refused) == {"UNAVAILABLE"}
    recorder.gate.set()
    for future in futures:
        future.result(5)
    batcher.stop()
    with pytest.raises(ServingError, match="shutting down"):
        batcher.submit(recorder, BATCHED, rows(1))


@pytest.mark.parametrize("name", ["max_batch_size", "num_threads", "max_waiting"])
def test_wrong_arguments(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        Batcher(**{name: 0})
