"""The launcher of the CUDA kernels against a driver that stands in for NVIDIA's: every call that may fail, and what the
kernels' body computes when it is started through all of it."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "custom_ops"

pytestmark = [
    pytest.mark.extended,
    pytest.mark.any_keras,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
]


def compile_cpp(output, *arguments):
    output.parent.mkdir(exist_ok=True)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}", "-pthread"]
    command = ["g++", *flags, *map(str, arguments), "-ldl", "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with the program, and a driver in each of `whole` and `lacking`."""
    folder = tmp_path_factory.mktemp("launch")
    compile_cpp(folder / "launch_check", HERE / "launch_check.cc", SOURCES / "psa_mask_launch.cc")
    for name, without in (("whole", 0), ("lacking", 1)):
        flags = ["-shared", "-fPIC", f"-DFAKE_CUDA_WITHOUT_GET_FUNCTION={without}"]
        compile_cpp(folder / name / "libcuda.so.1", HERE / "fake_cuda.cc", *flags)
    (folder / "none").mkdir()
    return folder


@pytest.fixture
def run(folder):
    """`run("problem", 0, driver="whole", fail="cuInit=100")` -> (what it said, the driver's calls), lists of lines."""

    def run(*arguments, driver="whole", fail="", program="launch_check"):
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder / driver), "FAKE_CUDA_FAIL": fail}
        command = [str(folder / program), *map(str, arguments)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines(), result.stderr.splitlines()

    return run


def test_kernels_are_loaded_into_the_primary_context_of_each_gpu(run):
    said, calls = run("problem", 0, 1, 0)
    assert said == ["none"] * 3
    retained = [f"cuDevicePrimaryCtxRetain {context}" for context in (4096, 8192, 4096)]
    assert calls == [
        "cuInit 0",
        retained[0],
        "cuModuleLoadData 4096",
        retained[1],
        "cuModuleLoadData 8192",
        retained[2],
    ]


TOO_OLD = (
    "the NVIDIA driver (for CUDA 11.4) does not take the kernels, which need CUDA 11.8 and compute capability 6.0: "
    "cuModuleLoadData failed with 222 (CUDA_ERROR_UNSUPPORTED_PTX_VERSION: unsupported toolchain)"
)


@pytest.mark.parametrize(
    ("fail", "problem"),
    [
        ("cuInit=100", "cuInit failed with 100 (CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected)"),
        ("cuDeviceGet=3", "cuDeviceGet failed with 3 (unknown error: no description)"),
        ("cuDevicePrimaryCtxRetain=2", "cuDevicePrimaryCtxRetain failed with 2 (unknown error: no description)"),
        ("cuCtxPushCurrent=2", "cuCtxPushCurrent failed with 2 (unknown error: no description)"),
        ("cuModuleLoadData=222", TOO_OLD),
        ("cuModuleGetFunction=500", "PsanetCopyRows2 failed with 500 (unknown error: no description)"),
    ],
)
def test_what_fails_beforehand_is_named(run, fail, problem):
    said, _ = run("problem", 0, fail=fail)
    assert said == [problem]


@pytest.mark.parametrize(
    ("fail", "problem"),
    [
        ("cuInit=100", "cuInit failed with 100 (CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected)"),
        ("cuStreamGetCtx=4", "cuStreamGetCtx failed with 4 (unknown error: no description)"),
        ("cuCtxPushCurrent=2", "cuCtxPushCurrent failed with 2 (unknown error: no description)"),
        ("cuModuleLoadData=222", TOO_OLD),
        ("cuModuleGetFunction=500", "PsanetCopyRows2 failed with 500 (unknown error: no description)"),
        ("cuLaunchKernel=700", "cuLaunchKernel failed with 700 (unknown error: no description)"),
    ],
)
def test_what_fails_at_a_launch_is_named(run, fail, problem):
    said, _ = run("launch", 1, 8, 4097, fail=fail)
    assert said == [problem]


def test_gpu_that_the_driver_does_not_count_is_named(run):
    assert run("problem", 2)[0] == ["cuDeviceGet failed with 101 (unknown error: no description)"]


@pytest.mark.parametrize("arguments", [("problem", 0), ("launch", 1, 8, 4097)])
def test_driver_that_lacks_a_function(run, arguments):
    said, calls = run(*arguments, driver="lacking")
    assert said == ["the NVIDIA driver has no cuModuleGetFunction"]
    assert calls == []


@pytest.mark.parametrize("arguments", [("problem", 0), ("launch", 1, 8, 4097)])
def test_machine_without_a_driver(run, arguments):
    (said,), _ = run(*arguments, driver="none")
    if not said.startswith("there is no NVIDIA driver: "):
        pytest.skip("this machine has a driver")
    assert said.startswith("there is no NVIDIA driver: libcuda.so.1: cannot open shared object file")


def test_element_size_without_a_kernel_is_an_error(run):
    assert run("launch", 1, 1, 4097)[0] == ["elements must be of 2, 4 or 8 bytes, got 1"]


def test_kernels_are_loaded_once_per_context_and_started_in_the_stream_s(run):
    said, calls = run("launch", 1, 8, 4097, 8193, 4098, 8193)
    assert said == ["none"] * 4
    assert calls == [
        "cuInit 0",
        "cuModuleLoadData 4096",
        "cuLaunchKernel 4097",
        "cuModuleLoadData 8192",
        "cuLaunchKernel 8193",
        "cuLaunchKernel 4098",
        "cuLaunchKernel 8193",
    ]


def test_failure_to_load_is_tried_again(run):
    said, calls = run("launch", 1, 8, 4097, 4097, fail="cuModuleLoadData=2")
    assert len(said) == calls.count("cuModuleLoadData 4096") == 2


def test_threads_that_come_at_once_load_once(run, folder):
    program = folder / "launch_check_tsan"
    flags = ["-O1", "-g", "-fsanitize=thread"]
    compile_cpp(program, *flags, HERE / "launch_check.cc", SOURCES / "psa_mask_launch.cc")
    if subprocess.run([str(program), "launch", "0", "8"], check=False, timeout=240).returncode:
        pytest.skip("ThreadSanitizer does not run here")
    said, calls = run("launch", 16, 8, 4097, 8193, 4097, 8193, program=program.name)
    assert said == ["none"] * 64
    assert [calls.count(line) for line in ("cuInit 0", "cuModuleLoadData 4096", "cuModuleLoadData 8192")] == [1, 1, 1]
    assert len(calls) == 3 + 64


def test_started_kernels_give_the_golden_numbers(golden, folder):
    arrays, cases = golden("psa_mask")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder / "whole")}
    for index, case in enumerate(cases):
        key = case["key"]
        dtype = (np.float16, np.float32, np.float64)[index % 3]
        sizes = [str(case[name]) for name in ("N", "H", "W", "mask_h", "mask_w")]
        for direction, source, target in (("forward", "x", "y"), ("gradient", "gy", "gx")):
            command = [str(folder / "launch_check"), "copy", direction, str(np.dtype(dtype).itemsize), *sizes]
            result = subprocess.run(
                command,
                env=environment,
                input=arrays[f"{key}/{source}"].astype(dtype).tobytes(),
                stdout=subprocess.PIPE,
                check=True,
                timeout=240,
            )
            found = np.frombuffer(result.stdout, dtype)
            expected = arrays[f"{key}/{target}"].astype(dtype).reshape(-1)
            np.testing.assert_array_equal(found, expected, f"{direction} {key}")
