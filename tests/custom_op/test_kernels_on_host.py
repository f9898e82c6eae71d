"""The kernels' arithmetic without TensorFlow and without a GPU, the CUDA kernels' body for every thread included."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "custom_ops"
FLAGS = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = [pytest.mark.extended, pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")]


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
    return compile_program("kernel_check.cc", output, *SANITIZERS)


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
