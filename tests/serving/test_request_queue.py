"""The queue before the model: in order, one at a time; what nobody waits for never starts; nothing stops it."""

import threading
import time
import weakref

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.runtimes.errors import ServingError, invalid_argument
from psanet_tf.runtimes.saved_model import Signature, TensorSpec
from psanet_tf.serving.server.request_queue import RequestQueue

DOUBLE = Signature("s", {"x": TensorSpec("x", tf.float32, (-1,))}, {"y": TensorSpec("y", tf.float32, (-1,))}, "")


class Recorder:
    """Stands in for a `Servable`: doubles x, raises what `failures` has for it, and waits while `gate` is closed."""

    def __init__(self):
        self.calls, self.seconds = [], []
        self.users = 0
        self.gate = threading.Event()
        self.failures = {}

    def acquire(self):
        self.users += 1

    def release(self):
        self.users -= 1

    def run(self, name, inputs, outputs, seconds):
        self.gate.wait(5)
        value = float(inputs["x"][0])
        self.calls.append(value)
        self.seconds.append(seconds)
        if value in self.failures:
            raise self.failures[value]
        return {"y": 2 * inputs["x"]}


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def queue(recorder):
    queue = RequestQueue()
    yield queue
    recorder.gate.set()
    assert queue.stop(10)
    assert recorder.users == 0


def number(value):
    return {"x": np.array([value], np.float32)}


def submit(queue, recorder, value, **options):
    return queue.submit(recorder, DOUBLE, number(value), **options)


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_requests_are_answered_in_their_order(queue, recorder):
    futures = [submit(queue, recorder, value) for value in range(5)]
    recorder.gate.set()
    assert [future.result(5)["y"].tolist() for future in futures] == [[0], [2], [4], [6], [8]]
    assert recorder.calls == [0, 1, 2, 3, 4]


def test_one_bad_request_fails_alone(queue, recorder):
    recorder.failures[1] = invalid_argument("a truncated image")
    good, bad, other = (submit(queue, recorder, value) for value in range(3))
    recorder.gate.set()
    assert good.result(5)["y"] == 0
    assert other.result(5)["y"] == 4
    with pytest.raises(ServingError, match="a truncated image"):
        bad.result(5)


def test_the_time_left_goes_along(queue, recorder):
    recorder.gate.set()
    submit(queue, recorder, 0, deadline=time.monotonic() + 60).result(5)
    submit(queue, recorder, 1).result(5)
    assert 50 < recorder.seconds[0] <= 60
    assert recorder.seconds[1] is None


def test_what_comes_too_late_is_not_run(queue, recorder):
    first = submit(queue, recorder, 0)
    late = submit(queue, recorder, 1, deadline=time.monotonic() - 1)
    recorder.gate.set()
    first.result(5)
    with pytest.raises(ServingError, match="deadline"):
        late.result(5)
    assert recorder.calls == [0]


def test_a_cancelled_request_leaves_the_queue_at_once(recorder):
    queue = RequestQueue()
    first = submit(queue, recorder, 0)
    until(lambda: not len(queue))  # the thread has it
    for value in (1, 2, 3):
        waiting = submit(queue, recorder, value)
        assert len(queue) == 1
        assert waiting.cancel()
        assert len(queue) == 0
        assert recorder.users == 1
    last = submit(queue, recorder, 4)
    recorder.gate.set()
    first.result(5)
    last.result(5)
    assert queue.stop(5)
    assert recorder.calls == [0, 4]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_nothing_ends_the_thread(queue, recorder, error):
    def burst(_):
        raise error("in a callback")

    recorder.failures[1] = error("in the model")
    first, second, third = (submit(queue, recorder, value) for value in range(3))
    first.add_done_callback(burst)
    recorder.gate.set()
    assert third.result(5)["y"] == 4
    with pytest.raises(MemoryError if error is MemoryError else ServingError):
        second.result(5)


def test_a_servable_that_cannot_be_released_does_not_end_the_thread(queue, recorder, monkeypatch):
    def release():
        recorder.users -= 1
        raise OSError("nobody reads what is said about it")

    monkeypatch.setattr(recorder, "release", release)
    recorder.gate.set()
    assert [submit(queue, recorder, value).result(5)["y"] for value in (1, 2)] == [2, 4]


def test_the_last_request_is_not_kept(queue, recorder):
    recorder.gate.set()
    array = np.zeros(1000, np.float32)
    kept = weakref.ref(array)
    queue.submit(recorder, DOUBLE, {"x": array}).result(5)
    del array
    until(lambda: kept() is None)


def test_a_stopping_queue_answers_what_waits_and_takes_no_more(recorder):
    queue = RequestQueue()
    futures = [submit(queue, recorder, value) for value in range(3)]
    assert not queue.stop(0.05)  # the first one still runs
    with pytest.raises(ServingError, match="shutting down"):
        submit(queue, recorder, 9)
    recorder.gate.set()
    assert queue.stop(5)
    assert [future.result(0)["y"].tolist() for future in futures] == [[0], [2], [4]]
