"""Files for other programs: size, seconds, and whether their answers are those of the network.

    python benchmarks/formats.py                   # PSANet-50 at 465 x 465, random weights: a Markdown table, minutes
    python benchmarks/formats.py --run RUN_DIR     # a trained network; scores on its validation images, too
    python benchmarks/formats.py --width 8 --blocks 1 1 1 1 --crop 33    # to try it

Every form labels the same crop, on all cores, in turns. "labels" is the share of pixels that have the label of the
Keras model in float32; without --run the classes of random weights are close to one another, and the share is the
lowest that is to be expected. Networks in int8 are calibrated with training images, without --run with made ones.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from machine import processor

from psanet_tf import PSANet, Segmenter
from psanet_tf.config import EvaluateSection, load_config
from psanet_tf.data.catalog import dataset_info
from psanet_tf.evaluation.run import run_evaluation
from psanet_tf.export import export_file, export_saved_model
from psanet_tf.export.calibration import calibration_images
from psanet_tf.export.metadata import PRECISIONS
from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.model_file import SUFFIXES, open_model_file
from psanet_tf.runtimes.saved_model import SavedModelSession

FORMS = [f"{format} {precision}" for format, precisions in PRECISIONS.items() for precision in precisions]
PACKAGES = ("tensorflow", "onnxruntime", "openvino", "ai-edge-litert")


def main():
    arguments = parse_arguments()
    network, info, evaluate, config = subject(arguments)
    size = network.input_shape[1:3]
    image = made_image(size)
    inference = tf.function(network.inference())
    batch = tf.constant(info.images.normalize(image)[None])
    calls = {"Keras float32": lambda: inference(batch, training=False).numpy()}
    expected = calls["Keras float32"]()[0].argmax(-1)
    sizes, labels, scores = {"Keras float32": ""}, {"Keras float32": expected}, {}
    calibration = calibrated(network, evaluate, config, arguments.calibration)
    with tempfile.TemporaryDirectory() as temporary:
        paths = {}
        for form in arguments.forms:
            format, precision = form.split()
            started = time.perf_counter()
            try:
                paths[form] = exported(network, info, evaluate, format, precision, calibration, Path(temporary))
            except (ImportError, ValueError) as error:
                print(f"left out: {form}: {error}\n", flush=True)
                continue
            calls[form], labels[form] = loaded(paths[form], image)
            sizes[form] = f"{bytes_of(paths[form]) / 1e6:.1f}"
            print(f"<!-- {form}: exported and checked in {time.perf_counter() - started:.0f} s -->", flush=True)
        if config is not None:
            for form, path in {"Keras float32": arguments.run, **paths}.items():
                scores[form] = miou(path, arguments, Path(temporary) / f"scores of {form}")
        times = timed(calls, arguments.repetitions)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if is_installed(name))
    print(
        f"\n{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, "
        f"{versions}, {network.count_params() / 1e6:.1f} million parameters, {size[0]} x {size[1]}\n"
    )
    print("| form | MB | s | of Keras | labels |" + (" mIoU | less |" if scores else ""))
    print("| --- | ---: | ---: | ---: | ---: |" + (" ---: | ---: |" if scores else ""))
    base = times["Keras float32"]
    for form in calls:
        agreement = "" if form == "Keras float32" else f"{(labels[form] == expected).mean():.2%}"
        row = f"| {form} | {sizes[form]} | {times[form]:.3f} | {times[form] / base:.2f} | {agreement} |"
        if scores:
            row += f" {100 * scores[form]:.2f} | {100 * (scores['Keras float32'] - scores[form]):.2f} |"
        print(row)


def subject(arguments):
    """(network, DatasetInfo, EvaluateSection, Config or None)."""
    if arguments.run is not None:
        segmenter = Segmenter.load(arguments.run)
        config = load_config(arguments.run / "config.yaml")
        return segmenter.model, segmenter.info, segmenter.evaluate, config
    sizes = {} if arguments.blocks is None else {"blocks": tuple(arguments.blocks)}
    crop = (arguments.crop, arguments.crop, 3)
    network = PSANet(150, depth=arguments.depth, width=arguments.width, input_shape=crop, **sizes)
    return network, dataset_info("ade20k"), EvaluateSection(base_size=arguments.crop), None


def calibrated(network, evaluate, config, count):
    size = network.input_shape[1:3]
    if config is None:
        return [made_image(size, seed) for seed in range(1, count + 1)]
    return calibration_images(Segmenter(network, evaluate=evaluate), size, config)[:count]


def exported(network, info, evaluate, format, precision, calibration, folder):
    folder = folder / f"{format} {precision}"
    with contextlib.redirect_stdout(io.StringIO()):  # converters talk
        if format == "saved_model":
            return export_saved_model(network, folder, info, evaluate, precision, warm_up=False).path
        path = folder / f"psanet{SUFFIXES[format]}"
        return export_file(
            network, path, info, evaluate, precision=precision, calibration=calibration if precision == "int8" else ()
        ).path


def loaded(path, image):
    """(a call that labels the image, its labels)."""
    if path.is_dir():
        session = SavedModelSession(path)

        def call():
            return session.run("serving_default", {"images": image[None]}, ["labels"])["labels"]
    else:
        file = open_model_file(path)

        def call():
            return file.run(image[None], ["labels"])["labels"]

    return call, call()[0]


def bytes_of(path):
    files = path.rglob("*") if path.is_dir() else path.parent.iterdir()
    return sum(file.stat().st_size for file in files if file.is_file())


def miou(weights, arguments, out):
    config = arguments.run / "config.yaml"
    _, summary = run_evaluation(weights, out, config, limit=arguments.limit, worst=0)
    return summary["miou"]


def timed(calls, repetitions):
    """Seconds of each call, the median; they take turns, and the first turn does not count."""
    times = {name: [] for name in calls}
    for turn in range(repetitions + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(of_form) for name, of_form in times.items()}


def is_installed(package):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(package))
    return False


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a trained run, whose data are there")
    parser.add_argument("--limit", type=int, help="with --run: score so many images (default: all)")
    parser.add_argument("--depth", type=int, default=50, choices=(50, 101, 152))
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blocks", type=int, nargs=4)
    parser.add_argument("--crop", type=int, default=465, help="rows and columns of the crop")
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS, metavar="'FORMAT PRECISION'")
    parser.add_argument("--calibration", type=int, default=8, help="images for int8 (default: 8)")
    parser.add_argument("--repetitions", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
