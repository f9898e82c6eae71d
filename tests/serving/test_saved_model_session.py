"""A SavedModel as a model server runs it: what stops a graph, and what it leaves to the graph."""

import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.saved_model import SavedModelSession


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("session") / "1"
    module = tf.Module()
    module.endless = tf.function(
        lambda x: {"y": tf.while_loop(lambda i: i >= 0, lambda i: [(i + 1) % 7], [x])[0]},
        [tf.TensorSpec([], tf.int32, name="x")],
        autograph=False,
    )
    module.halve = tf.function(lambda x: {"y": 0.5 * x}, [tf.TensorSpec([None, 1], tf.float32, name="x")])
    module.greet = tf.function(
        lambda name: {"text": tf.strings.join(["hello ", name])}, [tf.TensorSpec([], tf.string, name="name")]
    )
    signatures = {"endless": module.endless, "serving_default": module.halve, "greet": module.greet}
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


@pytest.fixture
def session(path):
    session = SavedModelSession(path)
    yield session
    session.close()


def test_a_graph_that_takes_too_long_is_stopped(session):
    with pytest.raises(ServingError) as caught:
        session.run("endless", {"x": np.array(0, np.int32)}, seconds=0.1)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert session.run("", {"x": np.float32([[4]])}, seconds=30)["y"].tolist() == [[2]]


def test_closing_ends_what_runs(session):
    caught = []

    def run():
        try:
            session.run("endless", {"x": np.array(0, np.int32)})
        except ServingError as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive()
    session.close()
    thread.join(20)
    assert [error.code for error in caught] == ["CANCELLED"]


def test_other_shapes_than_the_signatures_are_up_to_the_graph(session):
    assert session.run("", {"x": np.float32([4, 6])})["y"].tolist() == [2, 3]


def test_values_without_dimensions(session):
    answer = session.run("greet", {"name": np.array(b"you\0", object)})
    assert answer["text"].shape == () and answer["text"].item() == b"hello you\0"


def test_a_signature_that_is_not_there(session):
    with pytest.raises(ServingError, match='key "other" not found; the model has endless, greet, serv') as caught:
        session.run("other", {})
    assert caught.value.code == "FAILED_PRECONDITION"
