"""What the attention's outputs cost in an ONNX file: seconds for the labels alone, with and without them in the file.

    python benchmarks/attention_outputs.py                     # PSANet-50 at 465 x 465, random weights
    python benchmarks/attention_outputs.py --width 8 --blocks 1 1 1 1 --crop 33    # to try it

ONNX Runtime computes the whole graph, whatever it is asked for. Both files are run in turns, on all cores; the fastest
run of each counts, since whatever else the machine does only adds to it.
"""

import argparse
import dataclasses
import datetime
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from machine import processor

from psanet_tf import PSANet
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.export.frozen import frozen_graph
from psanet_tf.export.metadata import export_metadata
from psanet_tf.export.onnx import write
from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.model_file import open_model_file


def main():
    arguments = parse_arguments()
    sizes = {} if arguments.blocks is None else {"blocks": tuple(arguments.blocks)}
    crop = (arguments.crop, arguments.crop)
    network = PSANet(150, width=arguments.width, input_shape=(*crop, 3), **sizes)
    info, evaluate = dataset_info("ade20k"), EvaluateSection(base_size=arguments.crop)
    metadata = export_metadata(network, info, evaluate, format="onnx")
    image = made_image(crop)[None]
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, directions in (("with", metadata.directions), ("without", ())):
            of_file = dataclasses.replace(metadata, directions=directions)
            path = Path(folder) / f"{name}.onnx"
            write(frozen_graph(network, of_file), of_file, path)
            files[name] = open_model_file(path)
        times = {"labels, with": [], "labels, without": [], "labels and attention": []}
        for turn in range(arguments.repetitions + 1):
            for name, values in times.items():
                file = files["without" if name.endswith("without") else "with"]
                wanted = ("labels", *metadata.directions) if name.endswith("attention") else ("labels",)
                started = time.perf_counter()
                file.run(image, wanted)
                if turn:
                    values.append(time.perf_counter() - started)
        lengths = {name: file.path.stat().st_size for name, file in files.items()}
    print(
        f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, "
        f"{crop[0]} x {crop[1]}; files of {lengths['with']:,} and {lengths['without']:,} bytes\n"
    )
    print("| asked for | s | of labels, without |\n| --- | ---: | ---: |")
    base = min(times["labels, without"])
    for name, values in times.items():
        seconds = min(values)
        print(f"| {name} | {seconds:.3f} | {seconds / base:.3f} |")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blocks", type=int, nargs=4)
    parser.add_argument("--crop", type=int, default=465, help="rows and columns of the crop")
    parser.add_argument("--repetitions", type=int, default=9)
    return parser.parse_args()


if __name__ == "__main__":
    main()
