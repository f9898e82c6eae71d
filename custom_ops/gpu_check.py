"""Checks and times the CUDA kernels of psa_mask on a GPU, without TensorFlow.

Needs nvcc, NumPy and PyTorch (or CuPy), and this folder; the golden numbers are read where the repository has them.

    python custom_ops/gpu_check.py                 # build, check, time; Markdown on standard output
    python custom_ops/gpu_check.py --skip-timing   # correctness only

Exit status: 0 all correct, 1 something differs, 2 it cannot run here.
"""

import argparse
import ctypes
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
GOLDEN = FOLDER.parent / "tests" / "golden" / "psa_mask.npz"
# (N, H, W) of the table; the mask covers every offset, (2 H - 1) x (2 W - 1).
TIMED_SIZES = ((8, 30, 30), (8, 45, 45), (8, 64, 128))
TIMED_DTYPES = ("float16", "float32")
# Unsigned integers stand for all dtypes of their size: the kernels only move bits.
ELEMENT_TYPES = (np.uint16, np.uint32, np.uint64)


class TorchMemory:
    """Device arrays and timing with PyTorch."""

    def __init__(self):
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no GPU")
        self.torch = torch
        self.name = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"

    def upload(self, array):
        return self.torch.from_numpy(np.ascontiguousarray(array).view(np.uint8).reshape(-1)).cuda()

    def empty(self, size):
        return self.torch.empty(size, dtype=self.torch.uint8, device="cuda")

    def download(self, buffer, dtype):
        return buffer.cpu().numpy().view(dtype)

    def address(self, buffer):
        return buffer.data_ptr()

    def stream(self):
        return self.torch.cuda.current_stream().cuda_stream

    def synchronize(self):
        self.torch.cuda.synchronize()

    def free_bytes(self):
        return self.torch.cuda.mem_get_info()[0]

    def milliseconds(self, run, repetitions):
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repetitions):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / repetitions

    def copy(self, source, target):
        return lambda: target.copy_(source)

    def plain_gather(self, mask, result, shape, index, dtype):
        """torch.gather of the masks by absolute indices, and its transpose by scatter."""
        torch, (n, positions, channels) = self.torch, shape
        dtype = getattr(torch, dtype)
        masks = mask.view(dtype).view(n, positions, channels)
        results = result.view(dtype).view(n, positions, positions)
        indices = torch.from_numpy(index).cuda().expand(n, positions, positions)
        return (
            lambda: torch.gather(masks, 2, indices, out=results),
            lambda: masks.zero_().scatter_(2, indices, results),
        )


class CupyMemory:
    """Device arrays and timing with CuPy."""

    def __init__(self):
        import cupy

        self.cupy = cupy
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        self.name = f"{properties['name'].decode()}, CuPy {cupy.__version__}"

    def upload(self, array):
        return self.cupy.asarray(np.ascontiguousarray(array).view(np.uint8).reshape(-1))

    def empty(self, size):
        return self.cupy.empty(size, self.cupy.uint8)

    def download(self, buffer, dtype):
        return buffer.get().view(dtype)

    def address(self, buffer):
        return buffer.data.ptr

    def stream(self):
        return self.cupy.cuda.get_current_stream().ptr

    def synchronize(self):
        self.cupy.cuda.get_current_stream().synchronize()

    def free_bytes(self):
        return self.cupy.cuda.Device().mem_info[0]

    def milliseconds(self, run, repetitions):
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        start.record()
        for _ in range(repetitions):
            run()
        end.record()
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(start, end) / repetitions

    def copy(self, source, target):
        return lambda: target.data.copy_from_device_async(
            source.data, source.nbytes, self.cupy.cuda.get_current_stream()
        )

    def plain_gather(self, mask, result, shape, index, dtype):
        return None  # the comparison is with PyTorch's gather


def build_launchers(folder, nvcc):
    """Compiles the CUDA part alone and loads it."""
    library = Path(folder) / "launchers.so"
    flags = ["-O3", "-std=c++17", "-arch=native", "-Xcompiler", "-fPIC", "-shared", "-x", "cu"]
    subprocess.run([nvcc, *flags, str(FOLDER / "psa_mask_kernel.cu.cc"), "-o", str(library)], check=True)
    return load_launchers(library)


def load_launchers(library):
    """{"forward", "gradient"}: functions (source, target, sizes, element_size, stream) that raise on an error."""
    loaded = ctypes.CDLL(str(library))

    def launcher(name):
        function = getattr(loaded, name)
        function.restype = ctypes.c_char_p
        pointer, integer = ctypes.c_void_p, ctypes.c_int32
        function.argtypes = [pointer, pointer, ctypes.c_int64, *[integer] * 5, pointer]

        def launch(source, target, sizes, element_size, stream):
            error = function(source, target, *sizes, element_size, stream)
            if error is not None:
                raise RuntimeError(f"{name}{sizes}: {error.decode()}")

        return launch

    return {"forward": launcher("PsanetLaunchMask"), "gradient": launcher("PsanetLaunchMaskGradient")}


def absolute_indices(h, w, mask_h, mask_w):
    """[H * W, H * W] index of position q's entry in position p's mask, -1 off the mask."""
    row, column = np.arange(h), np.arange(w)
    y = row[None, :] - row[:, None] + (mask_h - 1) // 2
    x = column[None, :] - column[:, None] + (mask_w - 1) // 2
    y, x = y[:, None, :, None], x[None, :, None, :]
    inside = (y >= 0) & (y < mask_h) & (x >= 0) & (x < mask_w)
    return np.where(inside, y * mask_w + x, -1).reshape(h * w, h * w)


def numpy_forward(mask, index):
    """[N, HW, channels] -> [N, HW, HW]."""
    return np.where(index >= 0, np.take_along_axis(mask, np.maximum(index, 0)[None], axis=2), mask.dtype.type(0))


def numpy_gradient(gradient, index, channels):
    """[N, HW, HW] -> [N, HW, channels]."""
    n, positions, _ = gradient.shape
    spare = np.zeros((n, positions, channels + 1), gradient.dtype)  # the last channel takes what is off the mask
    np.put_along_axis(spare, np.where(index >= 0, index, channels)[None].repeat(n, 0), gradient, axis=2)
    return spare[:, :, :channels]


def run_kernel(memory, launch, source, target_elements, sizes, offset):
    """The kernel's output for a NumPy `source`; both arrays begin `offset` elements behind an aligned address."""
    dtype, size = source.dtype, source.dtype.itemsize
    padded = np.concatenate([np.zeros(offset, dtype), source.reshape(-1)])
    device_source = memory.upload(padded)
    guard = np.full(target_elements + 2 * offset, 0xA5, dtype)
    device_target = memory.upload(guard)
    launch(
        memory.address(device_source) + offset * size,
        memory.address(device_target) + offset * size,
        sizes,
        size,
        memory.stream(),
    )
    memory.synchronize()
    result = memory.download(device_target, dtype)
    if (result[:offset] != guard[:offset]).any() or (result[result.size - offset :] != guard[:offset]).any():
        raise AssertionError(f"sizes {sizes}, {dtype}: written outside the output")
    return result[offset : offset + target_elements]


def check_shapes(memory, launchers, count, seed=2018):
    """Random shapes, masks and alignments in all element sizes, forward and gradient; returns the number of cases."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        n, h, w = (int(random.integers(1, limit)) for limit in (4, 24, 40))
        mask_h, mask_w = (int(random.integers(1, limit)) for limit in (56, 88))
        index = absolute_indices(h, w, mask_h, mask_w)
        sizes, channels = (n, h, w, mask_h, mask_w), mask_h * mask_w
        for dtype in ELEMENT_TYPES:
            offset = int(random.integers(0, 8))
            mask = random.integers(1, np.iinfo(dtype).max, (n, h * w, channels), dtype)
            expected = numpy_forward(mask, index)
            found = run_kernel(memory, launchers["forward"], mask, expected.size, sizes, offset)
            np.testing.assert_array_equal(found, expected.reshape(-1), f"forward {sizes} {dtype.__name__}")
            gradient = random.integers(1, np.iinfo(dtype).max, expected.shape, dtype)
            expected = numpy_gradient(gradient, index, channels)
            found = run_kernel(memory, launchers["gradient"], gradient, expected.size, sizes, offset)
            np.testing.assert_array_equal(found, expected.reshape(-1), f"gradient {sizes} {dtype.__name__}")
    return 2 * len(ELEMENT_TYPES) * count


def check_golden(memory, launchers, path=GOLDEN):
    """The numbers of the original implementation, bit for bit; returns the number of cases."""
    arrays = np.load(path)
    cases = json.loads(str(arrays["meta"]))
    for case in cases:
        key = case["key"]
        sizes = tuple(case[name] for name in ("N", "H", "W", "mask_h", "mask_w"))
        for direction, source, target in (("forward", "x", "y"), ("gradient", "gy", "gx")):
            expected = arrays[f"{key}/{target}"]
            found = run_kernel(memory, launchers[direction], arrays[f"{key}/{source}"], expected.size, sizes, 0)
            np.testing.assert_array_equal(found, expected.reshape(-1), f"{direction} {key}")
    return 2 * len(cases)


def check_many_elements(memory, launchers):
    """A mask of more than 2^31 elements; the last map's rows against NumPy. Returns a line that says what was done."""
    n, h, w = 34, 64, 64
    mask_h, mask_w = 2 * h - 1, 2 * w - 1
    sizes, positions, channels = (n, h, w, mask_h, mask_w), h * w, mask_h * mask_w
    mask_bytes, result_bytes = 2 * n * positions * channels, 2 * n * positions * positions
    if memory.free_bytes() < mask_bytes + result_bytes + 2**29:
        return f"skipped: {(mask_bytes + result_bytes) / 1e9:.1f} GB do not fit"
    mask, result = memory.empty(mask_bytes), memory.empty(result_bytes)
    last = np.random.default_rng(7).integers(1, 2**16, (1, positions, channels), np.uint16)
    mask[mask_bytes - last.nbytes :] = memory.upload(last)
    index = absolute_indices(h, w, mask_h, mask_w)
    launchers["forward"](memory.address(mask), memory.address(result), sizes, 2, memory.stream())
    expected = numpy_forward(last, index)
    found = memory.download(result[result_bytes - expected.nbytes :], np.uint16)
    np.testing.assert_array_equal(found, expected.reshape(-1), "forward beyond 2^31")
    launchers["gradient"](memory.address(result), memory.address(mask), sizes, 2, memory.stream())
    found = memory.download(mask[mask_bytes - last.nbytes :], np.uint16)
    np.testing.assert_array_equal(found, numpy_gradient(expected, index, channels).reshape(-1), "gradient beyond 2^31")
    return f"{n * positions * channels:,} mask elements: correct"


def time_kernels(memory, launchers, repetitions=50):
    """Rows of the table: per size and dtype the kernels, a copy of the same bytes and a plain gather."""
    rows = []
    for n, h, w in TIMED_SIZES:
        for dtype in TIMED_DTYPES:
            rows += _time_size(memory, launchers, n, h, w, dtype, repetitions)
    return rows


def _time_size(memory, launchers, n, h, w, dtype, repetitions):
    mask_h, mask_w = 2 * h - 1, 2 * w - 1
    positions, channels, size = h * w, mask_h * mask_w, np.dtype(dtype).itemsize
    mask_bytes, result_bytes = n * positions * channels * size, n * positions * positions * size
    index_bytes = 8 * positions * positions
    if memory.free_bytes() < 2 * mask_bytes + 2 * result_bytes + index_bytes + 2**29:
        return [f"| {n} x {h} x {w} | {dtype} | does not fit | | | | | |"]
    mask, result = memory.empty(mask_bytes), memory.empty(result_bytes)
    sizes = (n, h, w, mask_h, mask_w)
    gather = memory.plain_gather(
        mask, result, (n, positions, channels), absolute_indices(h, w, mask_h, mask_w), dtype
    ) or (None, None)
    rows = []
    # A copy of b bytes reads b and writes b. Forward reads and writes the result's size; the gradient reads the
    # result's size and writes the mask's.
    for direction, source, target, moved, plain in (
        ("forward", mask, result, 2 * result_bytes, gather[0]),
        ("gradient", result, mask, result_bytes + mask_bytes, gather[1]),
    ):
        copy = memory.copy(memory.empty(moved // 2), memory.empty(moved // 2))

        def run(launch=launchers[direction], source=source, target=target):
            launch(memory.address(source), memory.address(target), sizes, size, memory.stream())

        for function in (run, copy):
            memory.milliseconds(function, 5)
        # Alternating, and the median of several: clocks move.
        times = [(memory.milliseconds(run, repetitions), memory.milliseconds(copy, repetitions)) for _ in range(7)]
        kernel_ms, copy_ms = np.median(times, axis=0)
        plain_text = f"{memory.milliseconds(plain, 10):.3f}" if plain else "-"
        rows.append(
            f"| {n} x {h} x {w} | {dtype} | {direction} | {kernel_ms:.3f} | {copy_ms:.3f} | {plain_text} "
            f"| {moved / kernel_ms / 1e6:.0f} GB/s | {copy_ms / kernel_ms:.0%} |"
        )
    return rows


def device_memory():
    """PyTorch's if it sees a GPU, else CuPy's.

    Raises:
        RuntimeError: neither can be used.
    """
    problems = []
    for kind in (TorchMemory, CupyMemory):
        try:
            return kind()
        except Exception as error:
            problems.append(f"{kind.__name__}: {error}")
    raise RuntimeError("; ".join(problems))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", default=shutil.which("nvcc"), help="path of nvcc (default: the one on PATH)")
    parser.add_argument("--shapes", type=int, default=60, help="number of random shapes")
    parser.add_argument("--skip-timing", action="store_true", help="correctness only")
    arguments = parser.parse_args()
    if not arguments.nvcc:
        print("gpu_check: no nvcc; name it with --nvcc", file=sys.stderr)
        return 2
    try:
        memory = device_memory()
    except RuntimeError as error:
        print(f"gpu_check: no GPU: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        launchers = build_launchers(folder, arguments.nvcc)
        print(f"{datetime.date.today()}, {memory.name}, `python custom_ops/gpu_check.py`\n")
        try:
            print(f"- original implementation's numbers: {check_golden(memory, launchers)} cases equal")
            print(f"- random shapes: {check_shapes(memory, launchers, arguments.shapes)} cases equal")
            print(f"- beyond 2^31: {check_many_elements(memory, launchers)}")
        except AssertionError as error:
            print(f"gpu_check: wrong result: {error}", file=sys.stderr)
            return 1
        if not arguments.skip_timing:
            print("\n| N x H x W | dtype | direction | kernel ms | copy ms | torch gather ms | kernel | of the copy |")
            print("|---|---|---|---|---|---|---|---|")
            for row in time_kernels(memory, launchers):
                print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
