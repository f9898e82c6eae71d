"""Processes that take turns at being timed, and the tensors that both sides of a comparison compute with."""

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

CLASSES = 150
CHANNELS, MID_CHANNELS = 2048, 512
MASK_BATCH = 2
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Process:
    """One side in a process of its own: `side_ours.py` or `side_original.py`, on a device: "cpu" or "gpu".

    With `returns_memory`, what it frees goes back to the system at once; what malloc keeps for later calls would be in
    the resident size.
    """

    def __init__(self, python, side, folder, device, semseg=None, returns_memory=False):
        self._arguments = python, side, folder, device, semseg
        script = Path(__file__).with_name(f"side_{side}.py")
        command = [python, str(script), str(folder), device, *([] if semseg is None else [str(semseg)])]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = "-1"
        # ninja is where that Python's other programs are.
        environment["PATH"] = f"{Path(python).parent}{os.pathsep}{environment.get('PATH', '')}"
        if returns_memory:
            environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, env=environment, **pipes)
        self._side = side
        self._device = device

    def memory(self, case):
        """(bytes more than before inputs and weights were made, than before the call) at the peak of a call.

        On a CPU they are of a process of its own, on a GPU of what tensors and workspaces of the prepared case take.
        """
        if self._device == "gpu":
            return self.ask("memory")
        process = Process(*self._arguments, returns_memory=True)
        process.ask("prepare", case=case)
        answer = process.ask("memory")
        process.close()
        return answer

    def ask(self, do, **request):
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the process of {self._side!r} has ended, its error is above")
        return json.loads(line)

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def work(side):
    """Answers requests, one JSON object a line, until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "prepare":
            call = None
            before = side.memory.in_use()
            call = side.prepare(**request["case"])
            call()
            side.wait()
            answer = None
        elif request["do"] == "time":
            calls = request["calls"]
            start = time.perf_counter()
            for _ in range(calls):
                call()
            side.wait()
            answer = (time.perf_counter() - start) / calls
        elif request["do"] == "memory":
            at_rest = side.memory.in_use()
            side.memory.reset_peak()
            call()
            side.wait()
            peak = side.memory.peak()
            answer = peak - before, peak - at_rest
        elif request["do"] == "save":
            side.save(call(), side.folder / request["name"])
            answer = None
        elif request["do"] == "describe":
            answer = side.describe()
        print(json.dumps(answer), file=answers, flush=True)


class ResidentMemory:
    """Of this process."""

    def in_use(self):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        return self._status_bytes("VmRSS")

    def reset_peak(self):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM

    def peak(self):
        return self._status_bytes("VmHWM")

    def _status_bytes(self, name):
        return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def features_of(crop):
    """(size of the features, of the shrunk map, of the mask) of a crop."""
    features = (crop - 1) // 8 + 1
    shrunk = (features - 1) // 2 + 1
    return features, shrunk, 2 * shrunk - 1


def draw(seed, *shape):
    import numpy as np

    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def attention_tensors(height, width, batch):
    """Features, predictors and kernel of collect, and of distribute."""
    tensors = []
    for seed in (0, 3):
        tensors.append(draw(seed, batch, height, width, MID_CHANNELS))
        tensors.append(draw(seed + 1, batch, height, width, MID_CHANNELS).clip(0))
        tensors.append(draw(seed + 2, MID_CHANNELS, 2 * height - 1, 2 * width - 1) / MID_CHANNELS**0.5)
    return tensors


def draw_pixels(batch, crop):
    import numpy as np

    return np.random.default_rng(2).integers(0, 256, (batch, crop, crop, 3))


def draw_labels(batch, crop):
    import numpy as np

    return np.random.default_rng(1).integers(0, CLASSES, (batch, crop, crop))
