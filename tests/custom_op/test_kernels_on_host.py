"""The kernels' arithmetic without TensorFlow and without a GPU, the CUDA kernels' body for every thread included."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "custom_ops"
FLAGS = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


def compile_program(source, output, *flags):
    result = subprocess.run(
        ["g++", *FLAGS, *flags, str(HERE / source), "-o", str(output)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return output


def run(program):
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def kernel_check(tmp_path_factory):
    output = tmp_path_factory.mktemp("sanitized") / "kernel_check"
    return compile_program("kernel_check.cc", output, "-DPSANET_MAIN=1", *SANITIZERS)


def test_random_shapes_under_sanitizers(kernel_check):
    assert run(kernel_check) == "200 cases\n"


def test_sanitizers_see_an_access_behind_the_end(kernel_check):
    # Proves that the test above would notice: the same with a row too many.
    result = subprocess.run([str(kernel_check), "1"], capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr


def test_rows_beyond_two_to_the_31_elements(tmp_path):
    program = compile_program("far_rows.cc", tmp_path / "far_rows", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    assert run(program) == "2642575360 elements\n"


@pytest.fixture(scope="module")
def gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", SOURCES / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def launchers(gpu_check, tmp_path_factory):
    """The launchers' interface over host memory: every thread of every block, one after the other."""
    library = tmp_path_factory.mktemp("launchers") / "emulated.so"
    return gpu_check.load_launchers(compile_program("kernel_check.cc", library, "-shared", "-fPIC", "-O2"))


class HostMemory:
    """What gpu_check needs of a device, on the host."""

    def upload(self, array):
        return np.ascontiguousarray(array).view(np.uint8).reshape(-1).copy()

    def download(self, buffer, dtype):
        return buffer.view(dtype)

    def address(self, buffer):
        return buffer.ctypes.data

    def stream(self):
        return None

    def synchronize(self):
        pass


def test_cuda_body_gives_the_golden_numbers(gpu_check, launchers):
    assert gpu_check.check_golden(HostMemory(), launchers) == 30


def test_cuda_body_equals_numpy_in_every_element_size_and_alignment(gpu_check, launchers):
    assert gpu_check.check_shapes(HostMemory(), launchers, count=12) == 72


def test_gpu_check_notices_a_wrong_kernel(gpu_check, launchers):
    def transposed(source, target, sizes, element_size, stream):
        n, h, w, mask_h, mask_w = sizes
        launchers["forward"](source, target, (n, h, w, mask_w, mask_h), element_size, stream)

    with pytest.raises(AssertionError, match="forward"):
        gpu_check.check_shapes(HostMemory(), {**launchers, "forward": transposed}, count=3)


def test_element_size_without_a_kernel_is_an_error(launchers):
    with pytest.raises(RuntimeError, match="2, 4 or 8 bytes"):
        launchers["forward"](None, None, (1, 1, 1, 1, 1), 1, None)
