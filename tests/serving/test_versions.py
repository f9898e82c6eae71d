"""New versions take over without losing a request; what cannot be loaded changes nothing."""

import gc
import os
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from google.protobuf import text_format

from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.model_folder import versions_on_disk
from psanet_tf.runtimes.protos import serving_apis
from psanet_tf.serving.client.client import Client
from psanet_tf.serving.server import load_retries, versions
from psanet_tf.serving.server.server import Server
from psanet_tf.serving.server.versions import VersionConfig, VersionManager

DATA = "data-00000-of-00001"
X = np.array([[1, 2]], np.float32)


@pytest.fixture
def folder(tmp_path, write_toy):
    folder = tmp_path / "toy"
    folder.mkdir()
    write_toy(folder, 1)
    return folder


def answer_of(manager, **which):
    with manager.use("toy", **which) as servable:
        return servable.run("", {"x": X})["y"].tolist()


def states(manager):
    return {status.version: status.state for status in manager.status("toy")}


def test_the_newest_version_takes_over_and_the_old_one_goes(folder, write_toy):
    manager = VersionManager("toy", folder)
    with pytest.raises(ServingError, match=r"Servable not found for request: Latest\(toy\)"):
        answer_of(manager)
    manager.poll()
    assert answer_of(manager) == [[1, 2]]
    write_toy(folder, 12)
    manager.poll()
    assert answer_of(manager) == [[12, 24]]
    assert states(manager) == {12: "AVAILABLE", 1: "END"}
    with pytest.raises(ServingError, match=r"Servable not found for request: Specific\(toy, 1\)"):
        answer_of(manager, version=1)
    manager.stop()
    assert states(manager) == {12: "END", 1: "END"}


def test_a_version_in_use_is_unloaded_by_its_last_user(folder, write_toy):
    manager = VersionManager("toy", folder)
    manager.poll()
    with manager.use("toy") as old:
        write_toy(folder, 2)
        manager.poll()
        assert states(manager) == {2: "AVAILABLE", 1: "UNLOADING"}
        assert old.run("", {"x": X})["y"].tolist() == [[1, 2]]
    assert states(manager) == {2: "AVAILABLE", 1: "END"}


def test_several_versions_and_labels(folder, write_toy):
    write_toy(folder, 2)
    write_toy(folder, 3)
    manager = VersionManager("toy", folder, latest_versions=1, labels={"stable": 1})
    manager.poll()
    assert states(manager) == {3: "AVAILABLE", 1: "AVAILABLE"}
    assert answer_of(manager, label="stable") == [[1, 2]]
    assert answer_of(manager) == [[3, 6]]
    with pytest.raises(ServingError, match="Unrecognized servable version label: canary"):
        answer_of(manager, label="canary")
    with pytest.raises(ServingError, match="assign label to version 2 of model toy, which is not currently available"):
        manager.configure(VersionConfig(labels={"stable": 2}))
    manager.configure(VersionConfig(labels={"stable": 3}))
    manager.poll()
    assert states(manager) == {3: "AVAILABLE", 1: "END"}
    manager.configure(VersionConfig(latest=None))
    manager.poll()
    assert manager.available == (3, 2, 1)
    manager.configure(VersionConfig(specific=(2, 9)))
    manager.poll()
    assert manager.available == (2,)
    manager.configure(VersionConfig(specific=(9,)))
    manager.poll()
    assert manager.available == (2,)  # nothing that takes its place
    manager.stop()


def test_what_is_configured_during_a_load_holds(folder, write_toy):
    def warm_up(servable):
        if servable.version == 2:
            manager.configure(VersionConfig(labels={"stable": 1}))

    manager = VersionManager("toy", folder, warm_up=warm_up)
    manager.poll()
    write_toy(folder, 2)
    for _ in range(2):
        manager.poll()
        assert manager.available == (2, 1)
        assert answer_of(manager, label="stable") == [[1, 2]]
    manager.stop()


def test_a_version_that_cannot_be_loaded_changes_nothing(folder, write_toy):
    seen = []
    manager = VersionManager("toy", folder, on_change=seen.append)
    manager.poll()
    (folder / "2").mkdir()
    (folder / "2" / "saved_model.pb").write_bytes(b"rubbish")
    for _ in range(3):
        manager.poll()
        assert answer_of(manager) == [[1, 2]]
    assert states(manager) == {2: "END", 1: "AVAILABLE"}
    failures = [status for status in seen if status.version == 2]
    assert [status.state for status in failures] == ["LOADING", "END"]  # tried once
    assert failures[1].error_code != "OK" and failures[1].error_message
    shutil.rmtree(folder / "2")
    write_toy(folder, 2)
    manager.poll()
    assert answer_of(manager) == [[1, 2]]  # might still be being copied
    manager.poll()
    assert answer_of(manager) == [[2, 4]]
    manager.stop()


def test_the_newest_version_that_loads_is_served_from_the_start(folder, write_toy):
    write_toy(folder, 2)
    for version in (3, 5):
        (folder / str(version)).mkdir()
        (folder / str(version) / "saved_model.pb").write_bytes(b"rubbish")
    manager = VersionManager("toy", folder)
    manager.poll()
    assert answer_of(manager) == [[2, 4]]
    assert states(manager) == {5: "END", 3: "END", 2: "AVAILABLE"}
    manager.stop()


def test_a_version_that_is_copied_slowly_is_loaded_when_it_is_whole(folder, write_toy, tmp_path):
    source = tmp_path / "elsewhere"
    source.mkdir()
    write_toy(source, 2, weights=1000)
    seen = []
    manager = VersionManager("toy", folder, on_change=seen.append)
    manager.poll()
    (folder / "2" / "variables").mkdir(parents=True)
    parts = ("saved_model.pb", "fingerprint.pb", *(f"variables/variables.{end}" for end in ("index", DATA)))
    for name in parts:
        shutil.copyfile(source / "2" / name, folder / "2" / name)
        manager.poll()
    assert manager.available == (1,)
    manager.poll()
    assert answer_of(manager) == [[2, 4]]
    # Not once per poll: the first time, and when nothing changed any more.
    assert [status.state for status in seen if status.version == 2] == ["LOADING", "END", "LOADING", "AVAILABLE"]
    manager.stop()


def test_a_version_whose_last_file_comes_during_the_load_is_tried_again(folder):
    tried = []

    def warm_up(servable):
        tried.append(servable)
        if len(tried) == 1:
            (folder / "1" / "assets.extra").mkdir()
            (folder / "1" / "assets.extra" / "last").write_bytes(b"of the copy")
            raise ServingError("NOT_FOUND", "a file is not there")

    manager = VersionManager("toy", folder, warm_up=warm_up)
    for attempts in (1, 1, 2):  # between the two looks at the finished copy is a poll
        manager.poll()
        assert len(tried) == attempts
    assert answer_of(manager) == [[1, 2]]
    manager.stop()


def test_a_version_that_fails_for_a_while_is_tried_again_some_times(folder, monkeypatch):
    monkeypatch.setattr(load_retries, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(load_retries, "RETRIES", 3)
    tried = []

    def out_of_memory(servable):
        tried.append(servable)
        raise ServingError("RESOURCE_EXHAUSTED", "OOM")

    manager = VersionManager("toy", folder, warm_up=out_of_memory)
    for _ in range(6):
        manager.poll()
    assert len(tried) == 4
    monkeypatch.setattr(load_retries, "RETRY_SECONDS", 60.0)
    tried.clear()
    manager = VersionManager("toy", folder, warm_up=out_of_memory)
    for _ in range(3):
        manager.poll()
    assert len(tried) == 1


def test_polling_goes_on_after_an_error(folder, write_toy):
    def say(status):
        if status.version == 2:
            raise BrokenPipeError("nobody reads this")

    manager = VersionManager("toy", folder, on_change=say)
    manager.start(0.01)
    assert manager.wait_until_available(20)
    write_toy(folder, 2)
    write_toy(folder, 3)
    end = time.monotonic() + 20
    while manager.available != (3,):
        assert time.monotonic() < end
        time.sleep(0.01)
    manager.stop()


@pytest.fixture
def swap(tmp_path, write_toy, few_collections, monkeypatch):
    """`swap(count)` replaces a version with 8 MB of weights so often -> memory after each; one graph stays."""
    write_toy(tmp_path, 1, weights=2_000_000)
    folder = tmp_path / "toy"
    folder.mkdir()
    os.rename(tmp_path / "1", folder / "1")
    monkeypatch.setattr(versions, "_collect_garbage", few_collections)
    graphs = weakref.WeakSet()
    manager = VersionManager("toy", folder, warm_up=lambda servable: graphs.add(servable._session.graph))

    def replace(count):
        after = []
        for _ in range(count):
            manager.poll()
            assert answer_of(manager) == [[1, 2]]
            assert len(graphs) == 1
            after.append(resident_bytes())
            (version,) = manager.available
            os.rename(folder / str(version), folder / str(version + 1))
        return after

    yield replace
    manager.stop()
    assert len(graphs) == 0


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_memory_of_versions_that_were_replaced_is_given_back(swap, monkeypatch):
    # What this process has else, far more than a server's, is not looked at in every collection.
    gc.collect()
    gc.freeze()
    with monkeypatch.context() as patch:
        for name in ("freeze", "unfreeze"):
            patch.setattr(gc, name, lambda: None)
        after = swap(22)
    gc.unfreeze()
    assert after[-1] - after[1] < 40e6  # of 160 MB of weights, without the graphs


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_what_is_loaded_is_not_looked_at_for_garbage_until_it_goes(swap):
    swap(1)
    frozen = gc.get_freeze_count()
    assert frozen > 1000
    swap(2)
    assert abs(gc.get_freeze_count() - frozen) < frozen / 2


def test_a_version_whose_warm_up_fails_is_not_served(folder):
    def fail(servable):
        raise ServingError("INVALID_ARGUMENT", "the warm-up has another shape")

    manager = VersionManager("toy", folder, warm_up=fail)
    manager.poll()
    (status,) = manager.status("toy")
    assert (status.state, status.error_message) == ("END", "the warm-up has another shape")
    assert not manager.wait_until_available(timeout=0)


def test_the_last_version_stays_though_its_folder_is_gone(folder):
    manager = VersionManager("toy", folder)
    manager.poll()
    shutil.rmtree(folder / "1")
    manager.poll()
    assert answer_of(manager) == [[1, 2]]


def test_what_counts_as_a_version(tmp_path):
    for name in ("3", "007", ".4", "notes", "5.tmp", "-6"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "8").mkdir()  # still without a model
    assert sorted(versions_on_disk(tmp_path)) == [3, 7]
    assert versions_on_disk(tmp_path / "none") == {}


def test_no_request_is_lost_while_versions_are_swapped(folder, write_toy):
    """200 requests, 8 at a time, over both protocols, while versions come and go."""
    apis = serving_apis()
    numbers = iter(range(2, 1000))
    enough = threading.Event()
    with Server(folder, rest_port=0, grpc_port=0, poll_seconds=0.02) as server:

        def swap():
            while not enough.is_set():
                newest = next(numbers)
                write_toy(folder, newest)
                if newest > 3:
                    shutil.rmtree(folder / str(newest - 3))

        def ask_grpc(stub, value):
            request = apis.predict_pb2.PredictRequest()
            request.model_spec.name = "toy"
            request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([[value, 1]])))
            response = stub.Predict(request, timeout=30)
            version = response.model_spec.version.value
            return version, tf.make_ndarray(response.outputs["y"]).tolist() == [[value * version, version]]

        def ask_rest(value):
            url = f"http://127.0.0.1:{server.rest_port}/v1/models/toy:predict"
            answer = requests.post(url, json={"instances": [[value, 1]]}, timeout=30)
            product, version = answer.json()["predictions"][0]
            return version, product == value * version

        swapper = threading.Thread(target=swap)
        swapper.start()
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel, ThreadPoolExecutor(8) as pool:
            stub = apis.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            answers, value = [], 0
            # At least 200 requests, and as many as it takes to meet five versions.
            while len(answers) < 200 or len({version for version, _ in answers}) < 5:
                batch = range(value, value + 40)
                value += 40
                answers += pool.map(lambda v: ask_grpc(stub, v) if v % 2 else ask_rest(v), batch)
        enough.set()
        swapper.join()
    assert len(answers) == value
    assert all(right for _, right in answers)


def test_labels_can_be_moved_while_serving(folder, write_toy):
    apis = serving_apis()
    write_toy(folder, 2)
    with Server(folder, rest_port=None, grpc_port=0, latest_versions=2) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = apis.model_service_pb2_grpc.ModelServiceStub(channel)
            request = apis.model_management_pb2.ReloadConfigRequest()
            model = request.config.model_config_list.config.add(name="toy", base_path=str(folder))
            model.version_labels["canary"] = 2
            stub.HandleReloadConfigRequest(request, timeout=10)
            assert answer_of(server.versions, label="canary") == [[2, 4]]
            model.version_labels["canary"] = 9
            with pytest.raises(grpc.RpcError, match="not currently available") as caught:
                stub.HandleReloadConfigRequest(request, timeout=10)
            assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert answer_of(server.versions, label="canary") == [[2, 4]]
            model.version_labels.clear()
            model.model_version_policy.specific.versions.append(1)
            stub.HandleReloadConfigRequest(request, timeout=10)
            with pytest.raises(ServingError, match="Unrecognized servable version label: canary"):
                answer_of(server.versions, label="canary")
            server.versions.poll()
            assert server.versions.available == (1,)
            for policy, available in (("all {}", (2, 1)), ("latest { num_versions: 1 }", (2,))):
                model.model_version_policy.Clear()
                text_format.Parse(policy, model.model_version_policy)
                stub.HandleReloadConfigRequest(request, timeout=10)
                server.versions.poll()
                assert server.versions.available == available
            model.model_version_policy.Clear()
            text_format.Parse("specific {}", model.model_version_policy)
            with pytest.raises(grpc.RpcError, match="specific names no versions"):
                stub.HandleReloadConfigRequest(request, timeout=10)
            model.base_path = "/etc"
            with pytest.raises(grpc.RpcError, match="this server has one folder, .*, not /etc"):
                stub.HandleReloadConfigRequest(request, timeout=10)
            model.name = "other"
            with pytest.raises(grpc.RpcError, match="must list just that"):
                stub.HandleReloadConfigRequest(request, timeout=10)


def test_labels_and_versions_choose_between_versions(folder, write_toy):
    write_toy(folder, 2)
    write_toy(folder, 3)
    with Server(folder, rest_port=0, grpc_port=0, labels={"stable": 1, "canary": 2}) as server:
        # The toy multiplies by its version.
        for which, version in (
            ("", 3),
            ("/labels/stable", 1),
            ("/labels/canary", 2),
            ("/versions/1", 1),
            ("/versions/2", 2),
            ("/versions/3", 3),
        ):
            with Client(f"grpc://127.0.0.1:{server.grpc_port}/toy{which}") as client:
                np.testing.assert_array_equal(client.predict("serving_default", x=X)["y"], version * X)
            url = f"http://127.0.0.1:{server.rest_port}/v1/models/toy{which}:predict"
            answer = requests.post(url, json={"inputs": X.tolist()}, timeout=30).json()
            np.testing.assert_array_equal(answer["outputs"], version * X)
