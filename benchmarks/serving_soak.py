"""Minutes of mixed load on `psanet serve`: good requests, malformed ones, clients that hang up, versions that change.

    python benchmarks/serving_soak.py --minutes 10

The network is small, so that there are many requests. Every answer to a good request is compared with what one of the
versions on disk says; memory and descriptors of the server's process are read while it works. At the end the server is
killed (SIGKILL) and started again, and the time until it answers is taken. Ends with status 1 where an answer was wrong
or lost, or a malformed request was not refused.
"""

import argparse
import contextlib
import datetime
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import requests
import tensorflow as tf
from machine import processor
from PIL import Image

from psanet_tf import PSANet
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import numbered_classes
from psanet_tf.export import export_saved_model
from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.saved_model import SavedModelSession
from psanet_tf.serving import Client

CLASSES = 21
MALFORMED = (
    b"",
    b"{",
    b"[1, 2]",
    b'{"instances": []}',
    b'{"inputs": {"x": 1}}',
    b'{"signature_name": "none", "instances": [1]}',
    b'{"signature_name": "predict_bytes", "instances": [{"b64": "not base64!"}]}',
    b'{"signature_name": "predict_bytes", "instances": [{"b64": "AAAA"}]}',
    b'{"signature_name": "predict_bytes", "instances": ["\\ud800"]}',
    b'{"instances": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--swap-seconds", type=float, default=20, help="how often a new version appears")
    options = parser.parse_args()
    print(
        f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, "
        f"`{' '.join(['python', *sys.argv])}`\n"
    )
    with tempfile.TemporaryDirectory() as temporary:
        exports, images, expected = _prepare(Path(temporary))
        folder = Path(temporary) / "psanet"
        _publish(exports[0], folder, 1)
        with _server(folder) as (process, ports):
            soak = Soak(ports, images, expected)
            memory, swaps = soak.run(options, process.pid, exports, folder)
            soak.report(memory, swaps)
            process.send_signal(signal.SIGKILL)
            process.wait()
        started = time.perf_counter()
        with _server(folder) as (_, ports), Client(f"grpc://127.0.0.1:{ports['grpc']}/psanet") as client:
            client.labels(images[0])
            print(f"\nfrom SIGKILL to the next answer: {time.perf_counter() - started:.1f} s")
    if missing := soak.missing():
        raise SystemExit(f"not as it should be: {missing}")


def _prepare(folder):
    """(two exports, images as files, [labels of every image] of either export)."""
    exports, expected = [], []
    images = [_encoded(made_image(size, seed=seed)) for seed, size in enumerate([(40, 60), (81, 65), (120, 90)])]
    for seed in range(2):
        tf.keras.utils.set_random_seed(seed)
        model = PSANet(CLASSES, blocks=(1, 1, 1, 1), width=8, input_shape=(33, 33, 3))
        evaluate = EvaluateSection(base_size=60, scales=(0.75,), flip=False)
        exports.append(export_saved_model(model, folder / f"export{seed}", numbered_classes(CLASSES), evaluate).path)
        session = SavedModelSession(exports[-1])
        answers = [session.run("predict_bytes", {"image_bytes": np.array([data], object)}) for data in images]
        expected.append([np.asarray(Image.open(io.BytesIO(answer["label_bytes"][0]))) for answer in answers])
        session.close()
    return exports, images, expected


def _encoded(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _publish(export, folder, version):
    """Appears under its number at once, as `psanet export` has it."""
    folder.mkdir(exist_ok=True)
    hidden = folder / f".{version}"
    shutil.copytree(export, hidden)
    hidden.rename(folder / str(version))


@contextlib.contextmanager
def _server(folder):
    ports = {name: _free_port() for name in ("rest", "grpc")}
    command = [sys.executable, "-m", "psanet_cli", "serve", folder, "--poll-seconds", "0.5"]
    command += ["--rest-port", ports["rest"], "--grpc-port", ports["grpc"]]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 300
        while True:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"http://127.0.0.1:{ports['rest']}/v1/models/psanet/metadata", timeout=5).ok:
                    break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the server did not start")
            time.sleep(0.1)
        yield process, ports
    finally:
        process.terminate()
        process.wait(60)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Soak:
    """The clients, and what they were told."""

    def __init__(self, ports, images, expected):
        self._ports = ports
        self._images = images
        self._expected = expected
        self._counts = Counter()
        self._faults = []
        self._latencies = {"grpc": [], "http": []}
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(self, options, pid, exports, folder):
        """[(seconds, MB, descriptors)] of the server, and how many versions it has changed to."""
        clients = [(self._ask, "grpc"), (self._ask, "http"), (self._ask, "http"), (self._send_malformed,)]
        clients += [(self._hang_up,), (self._cancel,)]
        threads = [threading.Thread(target=self._work, args=client) for client in clients]
        for thread in threads:
            thread.start()
        started = time.monotonic()
        memory, swaps, next_swap = [], 0, options.swap_seconds
        while (passed := time.monotonic() - started) < 60 * options.minutes:
            memory.append((passed, *_of_process(pid)))
            if passed > next_swap:
                next_swap += options.swap_seconds
                swaps += 1
                _publish(exports[swaps % 2], folder, swaps + 1)
                if swaps > 2:
                    shutil.rmtree(folder / str(swaps - 2))
            time.sleep(2)
        self._stop.set()
        for thread in threads:
            thread.join()
        return memory, swaps

    def report(self, memory, swaps):
        print(f"{swaps} versions took over; {json.dumps(dict(sorted(self._counts.items())))}\n")
        for fault in self._faults[:20]:
            print(f"- {fault}")
        print("| minutes | memory, MB | descriptors |\n| ---: | ---: | ---: |")
        for passed, megabytes, descriptors in memory[:: max(1, len(memory) // 10)] + memory[-1:]:
            print(f"| {passed / 60:.1f} | {megabytes:.0f} | {descriptors} |")
        for protocol, seconds in self._latencies.items():
            p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
            print(f"\n{protocol}: {len(seconds)} answers, median {p50:.0f} ms, p99 {p99:.0f} ms")

    def missing(self):
        """What was not answered as it should have been, in words; "" if all was."""
        good = ("right", "malformed, refused", "hung up", "cancelled")
        bad = {what: count for what, count in sorted(self._counts.items()) if what not in good}
        # Clients that asked nothing have seen nothing.
        bad |= {f"no {what}": 0 for what in good if not self._counts[what]}
        return "; ".join(f"{what} ({count})" if count else what for what, count in bad.items())

    def _work(self, function, *arguments):
        try:
            function(*arguments)
        except Exception as error:
            self._faults.append(f"{function.__name__} ended: {type(error).__name__}: {error}")
            self._count("client that gave up")

    def _count(self, what):
        with self._lock:
            self._counts[what] += 1

    def _ask(self, protocol):
        with Client(f"{protocol}://127.0.0.1:{self._ports['rest' if protocol == 'http' else 'grpc']}/psanet") as client:
            while not self._stop.is_set():
                index = random.randrange(len(self._images))
                started = time.perf_counter()
                try:
                    labels = client.labels(self._images[index])
                except ServingError as error:
                    self._count("lost")
                    self._faults.append(f"{protocol}: {error}")
                    continue
                self._latencies[protocol].append(time.perf_counter() - started)
                right = any(np.array_equal(labels, version[index]) for version in self._expected)
                self._count("right" if right else "wrong")

    def _send_malformed(self):
        url = f"http://127.0.0.1:{self._ports['rest']}/v1/models/psanet:predict"
        while not self._stop.is_set():
            answer = requests.post(url, data=random.choice(MALFORMED), timeout=60)
            if answer.status_code in (400, 404, 413):
                self._count("malformed, refused")
            else:
                self._count(f"malformed, status {answer.status_code}")
            time.sleep(0.05)

    def _hang_up(self):
        head = b"POST /v1/models/psanet:predict HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 100000\r\n\r\n{"
        while not self._stop.is_set():
            with socket.create_connection(("127.0.0.1", self._ports["rest"])) as connection:
                connection.sendall(head % self._ports["rest"])
                time.sleep(0.05)
            self._count("hung up")

    def _cancel(self):
        from psanet_tf.runtimes.protos import serving_apis, to_proto

        apis = serving_apis()
        request = apis.predict_pb2.PredictRequest()
        request.model_spec.name = "psanet"
        request.model_spec.signature_name = "predict_bytes"
        request.inputs["image_bytes"].CopyFrom(to_proto(np.array([self._images[-1]], object)))
        with grpc.insecure_channel(f"127.0.0.1:{self._ports['grpc']}") as channel:
            stub = apis.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self._stop.is_set():
                call = stub.Predict.future(request, timeout=30)
                time.sleep(random.uniform(0, 0.05))
                call.cancel()
                self._count("cancelled")


def _of_process(pid):
    """(resident MB, open descriptors)."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(resident.split()[1]) / 1e3, len(os.listdir(f"/proc/{pid}/fd"))


if __name__ == "__main__":
    main()
