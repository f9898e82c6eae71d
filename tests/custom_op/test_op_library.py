"""Finding, refusing, building and loading the op's library."""

import logging
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.layers import PSALayer
from psanet_tf.ops import op_build, op_library

pytestmark = pytest.mark.extended

ROOT = Path(__file__).parents[2]


def plant(library, path, name, value):
    """Writes a whole and loadable library to `path` whose stamp says that it is for another `name`."""
    contents = library.path.read_bytes()
    stamp = f'"{name}": "{library.stamp[name]}"'.encode()
    assert contents.count(stamp) == 1
    assert len(value) == len(library.stamp[name])
    path.write_bytes(contents.replace(stamp, f'"{name}": "{value}"'.encode()))
    return path


@pytest.fixture(scope="module")
def planted(library, tmp_path_factory):
    """A library for another TensorFlow."""
    return plant(library, tmp_path_factory.mktemp("planted") / "planted.so", "tensorflow", f"9{tf.__version__[1:]}")


def start_python(code, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return output, [line for line in errors.splitlines() if line.startswith("psa_mask")]


def test_stamp_says_what_the_library_is_for(library):
    assert op_build.mismatch(library.stamp, op_build.identity()) is None
    assert library.stamp["tensorflow"] == tf.__version__
    assert set(library.stamp) == {*op_build.identity(), "compiler"}


def test_library_for_another_tensorflow_is_refused_wherever_it_lies(library, planted, cache, monkeypatch, caplog):
    monkeypatch.setattr(op_library, "INSTALLED_LIBRARY", planted)
    path = cache / f"psa_mask-{op_build.make_plan().key}.so"
    path.write_bytes(planted.read_bytes())
    builds = []

    def build(plan, output):
        builds.append(output)
        output.write_bytes(library.path.read_bytes())

    monkeypatch.setattr(op_build, "build", build)
    with caplog.at_level(logging.WARNING, "psanet_tf"):
        assert op_library._installed() is None
        assert op_library._find_or_build() == path
    assert len(builds) == 1
    refused = [record.getMessage() for record in caplog.records if "not loading" in record.getMessage()]
    assert refused[0] == (
        f"psa_mask: not loading {planted}: it was built for tensorflow 9{tf.__version__[1:]}, here is {tf.__version__}"
    )
    assert any(str(path) in line for line in refused[1:])
    caplog.clear()
    assert op_library._find_or_build() == path
    assert len(builds) == 1


def test_file_without_a_stamp_is_refused(tmp_path, caplog):
    path = tmp_path / "op.so"
    for contents in (b"\x7fELF", op_build.STAMP_MARK + b"{broken\0", op_build.STAMP_MARK + b"{"):
        path.write_bytes(contents)
        assert not op_library._usable(path, {"tensorflow": "2.20.0"})
    assert "it says nothing of what it was built for" in caplog.text


@pytest.fixture
def loaded(monkeypatch):
    """Paths that TensorFlow is asked to load: nothing is loaded, and files without a stamp fail to."""
    paths = []

    def load_op_library(path):
        paths.append(Path(path))
        if b"broken" in Path(path).read_bytes():
            raise OSError("version `GLIBC_2.99' not found")
        return types.ModuleType("ops")

    monkeypatch.setattr(tf, "load_op_library", load_op_library)
    return paths


def test_installed_library_is_taken_first(library, loaded, first_use, monkeypatch, cache):
    monkeypatch.setattr(op_library, "INSTALLED_LIBRARY", library.path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert op_library.load_op_library().path == library.path
    assert loaded == [library.path]


@pytest.mark.parametrize("flaw", ["other sources", "cannot be loaded"])
def test_installed_library_hides_no_better_one(library, loaded, first_use, monkeypatch, cache, tmp_path, caplog, flaw):
    installed = plant(library, tmp_path / "installed.so", "sources", "0" * 16)
    reason = "it was built for sources 0000000000000000, here is"
    if flaw == "cannot be loaded":
        installed.write_bytes(library.path.read_bytes() + b"broken")
        reason = f"not using the installed library: {installed} cannot be loaded: version `GLIBC_2.99' not found"
    monkeypatch.setattr(op_library, "INSTALLED_LIBRARY", installed)
    better = cache / f"psa_mask-{op_build.make_plan().key}.so"
    better.write_bytes(library.path.read_bytes())
    assert op_library.load_op_library().path == better
    assert reason in caplog.text


def test_cached_library_outlives_the_compiler(library, cache, monkeypatch):
    cached = cache / "psa_mask-built-before.so"
    cached.write_bytes(library.path.read_bytes())
    monkeypatch.setattr(op_library, "INSTALLED_LIBRARY", cache / "none.so")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert op_library._find_or_build() == cached


def test_without_a_compiler_stock_ops_are_used_and_one_line_says_why(planted, cache, tmp_path):
    (cache / "psa_mask-planted.so").write_bytes(planted.read_bytes())
    inputs = keras.Input([9, 9, 8])
    model = keras.Model(inputs, PSALayer(psa_type="distribute", mid_channels=4)(inputs))
    for weight in model.weights:
        weight.assign(tf.random.stateless_uniform(weight.shape, [1, len(weight.shape)], 0.1, 1.0))
    model.save(tmp_path / "with_op.keras")
    x = np.random.default_rng(5).normal(size=(2, 9, 9, 8)).astype("float32")
    np.savez(tmp_path / "numbers.npz", x=x, y=model(x))
    (tmp_path / "bin").mkdir()
    code = f"""
        import numpy as np
        import tensorflow as tf
        import psanet_tf
        from psanet_tf.keras_api import keras
        from psanet_tf.ops import OpUnavailableError, op_library, psa_mask
        assert op_library._state is None, "loaded by the import"
        numbers = np.load({str(tmp_path / "numbers.npz")!r})
        model = keras.models.load_model({str(tmp_path / "with_op.keras")!r})
        np.testing.assert_allclose(model(numbers["x"]), numbers["y"], rtol=1e-5, atol=1e-6)
        psa_mask(tf.zeros([1, 2, 2, 9]))
        try:
            psa_mask(tf.zeros([1, 2, 2, 9]), implementation="custom")
        except OpUnavailableError as error:
            print(error)
        from psanet_cli.doctor import doctor
        doctor()
    """
    # No compiler on PATH, none in CXX.
    process = start_python(code, PATH=str(tmp_path / "bin"), CXX="", PSANET_CACHE_DIR=str(cache))
    output, log = finish(process)
    reason = "no C++ compiler: neither g++ nor c++ is on PATH"
    assert len(log) == 2, log
    assert log[0].startswith(f"psa_mask: not loading {cache / 'psa_mask-planted.so'}: it was built for tensorflow 9")
    assert log[1] == f"psa_mask uses stock TensorFlow ops: {reason}"
    lines = output.splitlines()
    assert lines[0] == reason
    assert f"{'psa_mask:':<18} stock TensorFlow ops: {reason}" in lines


def test_two_processes_build_once(library, quick_compiler, cache, tmp_path):
    quick_compiler.load_too(library.path)  # all but the compilation is as ever
    code = f"""
        import os, pathlib, time
        import numpy as np
        import tensorflow as tf
        from psanet_tf.ops import op_library, psa_mask
        x = tf.random.stateless_normal([2, 5, 4, 63], [1, 2])
        stock = psa_mask(x, implementation="stock").numpy()
        folder = pathlib.Path({str(tmp_path)!r})
        (folder / f"ready_{{os.getpid()}}").touch()
        last = time.monotonic() + 200
        while len(list(folder.glob("ready_*"))) < 2 and time.monotonic() < last:  # so that both come to the lock
            time.sleep(0.01)
        np.testing.assert_array_equal(psa_mask(x, implementation="custom"), stock)
        print(op_library.load_op_library().path)
    """
    environment = {"PATH": "/usr/bin:/bin", "PSANET_CACHE_DIR": str(cache)}
    processes = [start_python(code, **environment) for _ in range(2)]
    results = [finish(process) for process in processes]
    assert results[0][0] == results[1][0]
    assert quick_compiler.count("psa_mask_op.cc") == 1
    assert not list(cache.glob(".build-*"))
    compiled = [sum("psa_mask: compiled" in line for line in log) for _, log in results]
    assert sorted(compiled) == [0, 1]


def test_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.delenv("PSANET_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert op_library.cache_folder() == Path("/somewhere/psanet_tf")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert op_library.cache_folder() == Path.home() / ".cache" / "psanet_tf"


def test_library_that_cannot_be_read_is_passed_over(library, cache, monkeypatch, caplog):
    def read_stamp(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(op_library, "INSTALLED_LIBRARY", library.path)
    monkeypatch.setattr(op_build, "read_stamp", read_stamp)
    assert not op_library._usable(library.path, op_build.identity())
    assert f"psa_mask: not loading {library.path}: it cannot be read (Permission denied)" in caplog.text
