"""Attention as a whole and in blocks, time and memory; and, if it is at hand, the original's.

    python benchmarks/attention.py                                # a Markdown table, half an hour on two cores
    python benchmarks/attention.py --maps 30x30 45x45 --blocks 8x8 16x32
    python benchmarks/attention.py --semseg FOLDER                # see benchmarks/original.py for what that needs
    python benchmarks/attention.py --device gpu

What is measured is what `PSALayer` does between its convolutions, both directions with 512 channels. Every form is in a
process of its own, on all cores; they take turns. Memory is the largest resident size during a call, of a process that
does nothing else, less that before it, when the inputs were there already; "beside outputs" leaves out what the call
returns (with gradients, those of all inputs), which every form has. With --device gpu, memory is what the allocator has
given out, and several calls are queued for each timing.
"""

import argparse
import datetime
import os
import statistics
import sys
import tempfile
from pathlib import Path

from machine import processor
from original import GPU_CALLS, REPOSITORY, check_pytorch
from sides import MID_CHANNELS, Process


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        forms = {"whole": None} | {"x".join(map(str, block)): block for block in arguments.blocks}
        sides = {name: Process(sys.executable, "ours", folder, arguments.device) for name in forms}
        if arguments.semseg:
            sides["original"] = Process(arguments.pytorch, "original", folder, arguments.device, arguments.semseg)
        print(
            f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, "
            f"{', '.join(dict.fromkeys(side.ask('describe') for side in sides.values()))}, "
            f"load average {os.getloadavg()[0]:.1f}\n"
        )
        print("| map | pass | form | ms | of whole | MB | beside outputs | of whole | difference |")
        print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
        for batch, height, width in arguments.maps:
            for gradient in (False, True):
                measure(sides, forms, batch, height, width, gradient, arguments, folder)
        for side in sides.values():
            side.close()


def measure(sides, forms, batch, height, width, gradient, arguments, folder):
    """Prints one row for every form."""
    import numpy as np

    case = {"part": "attention", "height": height, "width": width, "batch": batch, "gradient": gradient}
    if not arguments.semseg:
        case |= {"xla": arguments.xla, "dtype": arguments.dtype}
    cases = {name: {**case, "block_size": forms.get(name)} for name in sides}
    for name, side in sides.items():
        side.ask("prepare", case=cases[name])
        if not gradient:
            side.ask("save", name=f"{name}.npy")
    differences = dict.fromkeys(sides, "")
    if not gradient:
        whole = np.load(folder / "whole.npy")
        for name in sides:
            difference = np.abs(np.load(folder / f"{name}.npy") - whole).max() / np.abs(whole).max()
            differences[name] = f"{difference:.1e}"
    times = {name: [] for name in sides}
    calls = 1 if arguments.device == "cpu" else GPU_CALLS
    for _ in range(arguments.repetitions):
        for name, side in sides.items():
            times[name].append(side.ask("time", calls=calls))
    medians = {name: statistics.median(of_form) for name, of_form in times.items()}
    bytes_ = {name: side.memory(cases[name])[1] for name, side in sides.items()}
    features = batch * height * width * MID_CHANNELS
    kernel = (2 * height - 1) * (2 * width - 1) * MID_CHANNELS
    outputs = (4 if arguments.dtype == "float32" else 2) * 2 * (2 * features + kernel if gradient else features)
    digits = 0 if arguments.device == "cpu" else 2
    for name in sides:
        own, of_whole = (max(bytes_[form] - outputs, 1) for form in (name, "whole"))
        print(
            f"| {batch} x {height} x {width} | {'forward and backward' if gradient else 'forward'} | {name} "
            f"| {1e3 * medians[name]:.{digits}f} | {medians[name] / medians['whole']:.2f} | {bytes_[name] / 1e6:.0f} "
            f"| {own / 1e6:.0f} | {own / of_whole:.3f} | {differences[name]} |",
            flush=True,
        )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    maps = [(1, 30, 30), (1, 45, 45), (1, 60, 60), (1, 64, 128)]
    parser.add_argument("--maps", nargs="+", type=lengths, default=maps, metavar="[BATCHx]HxW", help="sizes of the map")
    parser.add_argument("--blocks", nargs="+", type=lengths, default=[(16, 16)], metavar="ROWSxCOLUMNS")
    parser.add_argument("--repetitions", type=int, default=5, help="timings of each form")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--xla", action="store_true", help="all forms compiled by XLA")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--semseg", type=Path, metavar="FOLDER", help=f"clone of {REPOSITORY}")
    parser.add_argument("--pytorch", default=sys.executable, metavar="PYTHON", help="Python with PyTorch and ninja")
    arguments = parser.parse_args()
    if arguments.semseg and (arguments.xla or arguments.dtype != "float32"):
        parser.error("--semseg goes without --xla and --dtype: the original has neither")
    if arguments.semseg:
        check_pytorch(parser, arguments)
    arguments.maps = [size if len(size) == 3 else (1, *size) for size in arguments.maps]
    return arguments


def lengths(text):
    return tuple(map(int, text.split("x")))


if __name__ == "__main__":
    main()
