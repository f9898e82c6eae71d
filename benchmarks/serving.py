"""Times an exported PSANet behind the embedded server: latency, throughput, overhead, size, start.

    python benchmarks/serving.py            # Markdown tables on standard output, some ten minutes on two cores

Of PSANet-50 at 465 x 465, and of the small network of configs/scenes at 161 x 161, which shows what the server adds
where the network takes little time. The weights are not trained: times do not depend on them. `predict_bytes` is
exported so that an image is one crop. What is compared is timed in turns, so that a slow moment of the machine hits
all of it. Server and client share the machine, as they would not in production.
"""

import argparse
import datetime
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from machine import processor
from PIL import Image

from psanet_tf import PSANet
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.export import export_saved_model
from psanet_tf.export.verification import made_image
from psanet_tf.progress import track
from psanet_tf.runtimes.warmup import FILE as WARM_UP_FILE
from psanet_tf.serving import Client, Server

SMALL = {"width": 16, "blocks": (1, 1, 1, 1)}
# Name -> (arguments of PSANet, rows and columns of the crop, precision).
SUBJECTS = {
    "PSANet-50 float32": ({}, 465, "float32"),
    "PSANet-50 bfloat16": ({}, 465, "bfloat16"),
    "small float32": (SMALL, 161, "float32"),
}
PARTS = ("size", "start", "overhead", "load")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9, help="timings of each call (default: 9)")
    parser.add_argument("--requests", type=int, default=24, help="requests at each concurrency (default: 24)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--models", type=Path, help="keep the exports in this folder, and use those that are there")
    parser.add_argument("--subjects", nargs="+", default=list(SUBJECTS), choices=SUBJECTS, metavar="SUBJECT")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--cold", type=Path, help=argparse.SUPPRESS)  # what a fresh process is asked to do
    options = parser.parse_args()
    if options.cold:
        print(json.dumps(_cold_start(options.cold)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folders = _export(options, options.models or Path(temporary))
        print(
            f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, "
            f"TensorFlow {tf.__version__}, `{' '.join(['python', *sys.argv])}`\n"
        )
        for part in options.parts:
            {"size": _size, "start": _start, "overhead": _overhead, "load": _load}[part](folders, options)
            print(flush=True)


def _export(options, folder):
    """Subject -> folder of its versions; exports what is not there yet."""
    folders = {name: folder / name.replace(" ", "-") / "psanet" for name in options.subjects}
    missing = [name for name in options.subjects if not (folders[name] / "1").is_dir()]
    for name in track(missing, "exporting"):
        arguments, crop, precision = SUBJECTS[name]
        model = PSANet(150, input_shape=(crop, crop, 3), **arguments)
        evaluate = EvaluateSection(base_size=crop, flip=False)
        export_saved_model(model, folders[name], dataset_info("ade20k"), evaluate, precision=precision)
    return folders


def _size(folders, options):
    print("| network | variables MB | graph MB | all MB |")
    print("|---|---|---|---|")
    for name, folder in folders.items():
        files = {file: file.stat().st_size / 1e6 for file in (folder / "1").rglob("*") if file.is_file()}
        variables = sum(size for file, size in files.items() if file.parent.name == "variables")
        graph = files[folder / "1" / "saved_model.pb"]
        print(f"| {name} | {variables:.1f} | {graph:.2f} | {sum(files.values()):.1f} |")


def _start(folders, options):
    print("| network | warm-up | process start to ready s | first answer s | second answer s | start to answer s |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for name, folder in folders.items():
            cold = Path(temporary) / name / "psanet" / "1"
            cold.mkdir(parents=True)
            for item in (folder / "1").iterdir():
                if item.name != WARM_UP_FILE.parent.name:
                    (cold / item.name).symlink_to(item.resolve())
            for warm_up, path in (("yes", folder), ("no", cold.parent)):
                command = [sys.executable, __file__, "--cold", path]
                started = time.time()
                answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                ready = answer["ready"] - started
                first, second = answer["first"], answer["second"]
                print(f"| {name} | {warm_up} | {ready:.1f} | {first:.2f} | {second:.2f} | {ready + first:.1f} |")


def _cold_start(folder):
    with Server(folder, rest_port=None, grpc_port=0) as server:
        ready = time.time()
        with Client(f"grpc://127.0.0.1:{server.grpc_port}/psanet", timeout=300) as client:
            images = made_image(client.metadata().input_size)[None]
            first, second = (_seconds(lambda: client.label_images(images)) for _ in range(2))
    return {"ready": ready, "first": first, "second": second}


def _overhead(folders, options):
    print("| network | signature | bare SavedModel ms | gRPC ms | over | REST ms | over |")
    print("|---|---|---|---|---|---|---|")
    for name, folder in folders.items():
        image = made_image(_crop(name))
        inputs = {
            "serving_default": {"images": image[None]},
            "predict_bytes": {"image_bytes": np.array([_jpeg(image)], object)},
        }
        bare = tf.saved_model.load(str(folder / "1")).signatures
        with Server(folder, rest_port=0, grpc_port=0) as server:
            for signature, arrays in inputs.items():
                calls = [_bare_call(bare[signature], arrays)]
                calls += [_served_call(client, signature, arrays) for client in _clients(server)]
                alone, grpc, rest = _medians(calls, options.repetitions)
                print(
                    f"| {name} | {signature} | {alone:.1f} | {grpc:.1f} | {grpc / alone - 1:+.1%} "
                    f"| {rest:.1f} | {rest / alone - 1:+.1%} |",
                    flush=True,
                )


def _bare_call(function, arrays):
    def call():
        tensors = {name: tf.constant(list(array) if array.dtype == object else array) for name, array in arrays.items()}
        return {name: value.numpy() for name, value in function(**tensors).items()}

    return call


def _served_call(client, signature, arrays):
    return lambda: client.predict(signature, **arrays)


def _load(folders, options):
    print("| network | concurrency | p50 ms | p99 ms | requests/s |")
    print("|---|---|---|---|---|")
    for name, folder in folders.items():
        arrays = {"images": made_image(_crop(name))[None]}
        with Server(folder, rest_port=None, grpc_port=0) as server:
            with Client(f"grpc://127.0.0.1:{server.grpc_port}/psanet", timeout=300) as client:
                for concurrency in options.concurrency:
                    count = max(options.requests, 3 * concurrency)
                    latencies, seconds = _at_concurrency(
                        concurrency, count, _served_call(client, "serving_default", arrays)
                    )
                    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
                    print(f"| {name} | {concurrency} | {p50:.0f} | {p99:.0f} | {count / seconds:.2f} |", flush=True)


def _at_concurrency(concurrency, count, call):
    """(seconds of each call, seconds of all)."""
    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(lambda _: call(), range(2 * concurrency)))
        started = time.perf_counter()
        latencies = list(pool.map(lambda _: _seconds(call), range(count)))
        return latencies, time.perf_counter() - started


def _crop(name):
    return 2 * (SUBJECTS[name][1],)


def _clients(server):
    return (
        Client(f"grpc://127.0.0.1:{server.grpc_port}/psanet", timeout=300),
        Client(f"http://127.0.0.1:{server.rest_port}/psanet", timeout=300),
    )


def _jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _medians(functions, repetitions):
    """Milliseconds of each function; the first two calls do not count."""
    for function in functions:
        function()
        function()
    times = [[_seconds(function) for function in functions] for _ in range(repetitions)]
    return np.median(times, axis=0) * 1e3


if __name__ == "__main__":
    main()
