"""This package against the original PyTorch implementation: op, attention module, network, export, training; memory.

    git clone https://github.com/hszhao/semseg FOLDER && pip install torch==2.13.0 ninja
    python benchmarks/original.py --semseg FOLDER                         # all parts, half an hour on two cores
    python benchmarks/original.py --semseg FOLDER --only psa_mask,layer   # some of them
    python benchmarks/original.py --semseg FOLDER --pytorch other/bin/python --json times.json
    python benchmarks/original.py --semseg FOLDER --device gpu            # PyTorch with CUDA, and its nvcc

TensorFlow and PyTorch run in processes of their own, each on all cores, that take turns: while one is timed, the other
one waits. Both have the same weights and inputs; what they answer is compared. PyTorch's networks are in channels_last,
its fast layout on CPUs; bfloat16 is a mixed_bfloat16 policy here and autocast there (with the original's op, which has
none, in float32). "export" is a SavedModel made for CPUs against the original's network, from pixels to probabilities.
Memory is the largest resident size during a call, of a process that does nothing else, less what it had before weights
and inputs were made. On a GPU float32 products are TF32's on both sides, memory is what each one's allocator has given
out, and several calls are queued, whose mean is a timing: a call returns before it is done.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import processor
from sides import CHANNELS, MASK_BATCH, Process, features_of

PARTS = ("psa_mask", "layer", "network", "export", "train")
PRECISIONS = ("float32", "bfloat16")
REPOSITORY = "https://github.com/hszhao/semseg"
GPU_CALLS = 10  # that are queued for a timing


def cases(arguments):
    """(part, title, case, timings) of what is measured."""
    crop, batch, repetitions = arguments.crop, arguments.batch, arguments.repetitions
    if "psa_mask" in arguments.only:
        for size in (30, 45):
            for direction in ("collect", "distribute"):
                for gradient in (False, True):
                    title = f"{direction}, {MASK_BATCH} x {size} x {size}, {'gradient' if gradient else 'forward'}"
                    case = {"size": size, "direction": direction, "gradient": gradient}
                    yield "psa_mask", title, case, 3 * repetitions
    for precision in arguments.precisions:
        case = {"crop": crop, "precision": precision}
        size = features_of(crop)[0]
        if "layer" in arguments.only:
            yield "layer", f"1 x {size} x {size} x {CHANNELS}, {precision}", case, repetitions
        if "network" in arguments.only:
            yield "network", f"forward, 1 x {crop} x {crop}, {precision}", {**case, "batch": 1}, repetitions
        if "export" in arguments.only:
            title = f"pixels to probabilities, 1 x {crop} x {crop}, {precision}"
            yield "export", title, {**case, "batch": 1}, repetitions
        if "train" in arguments.only:
            title = f"step, {batch} x {crop} x {crop}, {precision}"
            case |= {"batch": batch, "steps": 1 if arguments.device == "cpu" else GPU_CALLS}
            yield "train", title, case, max(3, repetitions // 3)


def measure(ours, original, part, title, case, repetitions, folder, device):
    """One row of the table."""
    import numpy as np

    sides = {"ours": ours, "original": original}
    for side in sides.values():  # ours first: it hands its weights over
        side.ask("prepare", case={"part": part, **case})
    if part != "train":
        for name, side in sides.items():
            side.ask("save", name=f"{name}.npy")
        mine, theirs = (np.load(folder / f"{name}.npy") for name in sides)
        difference = float(np.abs(mine.reshape(theirs.shape) - theirs).max() / np.abs(theirs).max())
    else:
        difference = None
    times = {name: [] for name in sides}
    steps = case.get("steps", 1)
    calls = 1 if device == "cpu" or steps > 1 else GPU_CALLS
    for _ in range(repetitions):
        for name, side in sides.items():
            times[name].append(side.ask("time", calls=calls) / steps)
    row = {"part": part, "case": title, "difference": difference}
    for name, side in sides.items():
        # The process of an export has made it, too, so its size says nothing.
        memory = None if part == "export" and device == "cpu" else side.memory({"part": part, **case})[0]
        row[name] = {"seconds": statistics.median(times[name]), "bytes": memory, "times": times[name]}
    return row


def in_table(row):
    mine, theirs = row["ours"], row["original"]
    difference = "" if row["difference"] is None else f"{row['difference']:.1e}"
    memory = "| | | "
    if mine["bytes"] is not None:
        ratio = mine["bytes"] / max(theirs["bytes"], 1)
        memory = f"| {theirs['bytes'] / 1e6:.0f} | {mine['bytes'] / 1e6:.0f} | {ratio:.2f} "
    return (
        f"| {row['part']} | {row['case']} | {1e3 * theirs['seconds']:.1f} | {1e3 * mine['seconds']:.1f} "
        f"| {mine['seconds'] / theirs['seconds']:.2f} {memory}| {difference} |"
    )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--semseg", type=Path, required=True, metavar="FOLDER", help=f"clone of {REPOSITORY}")
    parser.add_argument(
        "--pytorch", default=sys.executable, metavar="PYTHON", help="Python with PyTorch and ninja (default: this one)"
    )
    parser.add_argument(
        "--only", default=",".join(PARTS), help=f"parts, with commas between (default: {','.join(PARTS)})"
    )
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="of both sides")
    parser.add_argument("--crop", type=int, default=465, help="16n + 1")
    parser.add_argument("--batch", type=int, default=2, help="of the training step")
    parser.add_argument("--repetitions", type=int, default=9, help="timings of each side; of the op 3 times as many")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all timings there, too")
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    for part in arguments.only:
        if part not in PARTS:
            parser.error(f"--only must be among {', '.join(PARTS)}, got {part!r}")
    if arguments.crop < 33 or arguments.crop % 16 != 1:
        parser.error(f"--crop must be of the form 16n + 1, as the original needs it, and at least 33: {arguments.crop}")
    check_pytorch(parser, arguments)
    return arguments


def check_pytorch(parser, arguments):
    """Says how to get what the original's side needs, where that is missing."""
    if not (arguments.semseg / "lib" / "psa" / "src" / "cpu" / "psamask.cpp").is_file():
        parser.error(
            f"--semseg: {arguments.semseg} is no clone of the original: git clone {REPOSITORY} {arguments.semseg}"
        )
    arguments.semseg = arguments.semseg.resolve()
    if not shutil.which(arguments.pytorch):
        parser.error(f"--pytorch: there is no program {arguments.pytorch}")
    search = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, ['torch', 'ninja'])))"
    if subprocess.run([arguments.pytorch, "-c", search], check=False).returncode:
        parser.error(
            f"{arguments.pytorch} has no PyTorch or no ninja: pip install torch==2.13.0 ninja, or name another Python "
            "that has them with --pytorch"
        )


def main():
    arguments = parse_arguments()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = Process(sys.executable, "ours", folder, arguments.device)
        original = Process(arguments.pytorch, "original", folder, arguments.device, arguments.semseg)
        machine = (
            f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, {ours.ask('describe')}, "
            f"{original.ask('describe')}, load average {os.getloadavg()[0]:.1f}"
        )
        print(f"{machine}\n")
        print("| part | case | original ms | ours ms | ratio | original MB | ours MB | ratio | difference |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
        for part, title, case, repetitions in cases(arguments):
            rows.append(measure(ours, original, part, title, case, repetitions, folder, arguments.device))
            print(in_table(rows[-1]), flush=True)
        ours.close()
        original.close()
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
