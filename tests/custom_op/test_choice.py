"""Which implementation `psa_mask` takes: "auto" where something is wrong, "custom" where it cannot run."""

import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from psanet_cli.doctor import doctor
from psanet_tf.ops import OpUnavailableError, op_build, op_library, psa_mask

MASK = tf.constant(np.random.default_rng(1).normal(size=(1, 2, 3, 15)), tf.float32)


def no_home(monkeypatch, tmp_path):
    def getpwuid(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "PSANET_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", getpwuid)


def home_of_nobody(monkeypatch, tmp_path):
    monkeypatch.setenv("PSANET_CACHE_DIR", "~no-such-user/cache")


def file_in_place_of_the_cache(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PSANET_CACHE_DIR", str(tmp_path / "file" / "cache"))


def no_threads(monkeypatch, tmp_path):
    def build(plan, output):
        raise RuntimeError("can't start new thread")

    monkeypatch.setenv("PSANET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(op_build, "build", build)


@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [
        (no_home, "there is no home folder for the cache: set PSANET_CACHE_DIR to a folder"),
        (home_of_nobody, "there is no home folder for the cache: set PSANET_CACHE_DIR to a folder"),
        (file_in_place_of_the_cache, r"file/cache cannot be used \(.*; PSANET_CACHE_DIR can name another folder"),
        (no_threads, "it could not be set up: RuntimeError: can't start new thread"),
    ],
)
def test_nothing_that_goes_wrong_stops_auto(first_use, monkeypatch, tmp_path, caplog, capsys, obstacle, reason):
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    monkeypatch.setattr(op_library, "INSTALLED_LIBRARY", tmp_path / "none.so")
    obstacle(monkeypatch, tmp_path)
    np.testing.assert_array_equal(psa_mask(MASK), psa_mask(MASK, implementation="stock"))
    assert re.search(f"psa_mask uses stock TensorFlow ops: {reason}|{reason}", caplog.text)
    with pytest.raises(OpUnavailableError, match=reason):
        psa_mask(MASK, implementation="custom")
    doctor()
    assert re.search(f"psa_mask: *stock TensorFlow ops: .*{reason}", capsys.readouterr().out)


@pytest.fixture
def gpu_without_kernels(library, first_use, monkeypatch):
    """A GPU on which the kernels cannot run, as the list of devices and the library say."""
    visible = tf.config.get_visible_devices

    def get_visible_devices(kind=None):
        return ["GPU:0"] if kind == "GPU" else visible(kind)

    monkeypatch.setattr(tf.config, "get_visible_devices", get_visible_devices)
    monkeypatch.setattr(op_library.OpLibrary, "gpu_problem", lambda self: "GPU:0: the driver is too old")


def operations(function):
    graph = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(MASK.shape)).graph
    return {node.type for node in graph.get_operations()}


def test_auto_takes_stock_ops_and_says_so(gpu_without_kernels, caplog):
    assert "PsaMask" not in operations(psa_mask)
    assert "psa_mask uses stock TensorFlow ops: GPU:0: the driver is too old" in caplog.text


def test_custom_is_an_error_that_says_what_to_do(gpu_without_kernels):
    with pytest.raises(
        OpUnavailableError, match=r'GPU:0: the driver is too old; tf.device\("CPU:0"\) around it, or CUDA'
    ):
        operations(lambda mask: psa_mask(mask, implementation="custom"))


def test_custom_may_be_placed_on_the_cpu(gpu_without_kernels):
    def on_cpu(mask):
        with tf.device("CPU:0"):
            return psa_mask(mask, implementation="custom")

    assert "PsaMask" in operations(on_cpu)
    np.testing.assert_array_equal(on_cpu(MASK), psa_mask(MASK, implementation="stock"))


def test_custom_does_not_copy_from_a_gpu(gpu_without_kernels):
    if not tf.config.list_physical_devices("GPU"):
        pytest.skip("no GPU")
    with tf.device("GPU:0"), pytest.raises(OpUnavailableError, match="GPU:0: the driver is too old"):
        psa_mask(tf.identity(MASK), implementation="custom")
