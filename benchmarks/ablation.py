"""The paper's ablation in miniature: FCN, collect, distribute, both, on the synthetic scenes, several seeds each.

    python benchmarks/ablation.py --out ablation

Every run is `psanet train` and `psanet evaluate` with a configuration of configs/scenes; the four differ in the
attention module only. Runs that are finished are not done again, so that an interrupted ablation goes on. The table
that it prints is the one of docs/ablation.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

CONFIGS = Path(__file__).parent.parent / "configs" / "scenes"
VARIANTS = {"fcn": "FCN, no attention", "collect": "+ collect", "distribute": "+ distribute", "psanet": "+ both"}


def run(variant, seed, out, extra=()):
    """Trains and scores one network; returns its scores and the seconds of the training."""
    folder = out / f"{variant}-{seed}"
    scores, seconds = folder / "evaluation" / "scores.json", folder / "seconds.json"
    if not scores.is_file():
        start = time.monotonic()
        values = [
            f"train.seed={seed}",
            f"data.root={out / 'scenes'}",
            "train.tensorboard=false",
            "train.cpu_replicas=2",
            *extra,
        ]
        overrides = [argument for value in values for argument in ("--set", value)]
        config = CONFIGS / f"{variant}.yaml"
        _psanet("train", "--config", config, "--run-dir", folder, *overrides)
        seconds.write_text(json.dumps(time.monotonic() - start))
        _psanet("evaluate", "--weights", folder)
    return json.loads(scores.read_text()), json.loads(seconds.read_text())


def table(results):
    """Markdown: mean and sample standard deviation over the seeds, in percent."""
    from psanet_tf.data.scenes import KINDS

    def water(scores):
        return statistics.mean(row["iou"] for row in scores["classes"] if row["name"] in KINDS)

    columns = {
        "mIoU": lambda scores: scores["miou"],
        "IoU of the waters": water,
        "mAcc": lambda scores: scores["macc"],
        "allAcc": lambda scores: scores["allacc"],
    }
    lines = [f"| network | {' | '.join(columns)} | training, s |", "| --- |" + " ---: |" * (len(columns) + 1)]
    for variant, runs in results.items():
        cells = [_spread([100 * score(scores) for scores, _ in runs], 2) for score in columns.values()]
        cells.append(_spread([seconds for _, seconds in runs], 0))
        lines.append(f"| {VARIANTS[variant]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values, digits):
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _psanet(*arguments):
    subprocess.run([sys.executable, "-m", "psanet_cli", *map(str, arguments)], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("ablation"), help="folder for the scenes and the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()
    results = {variant: [] for variant in arguments.variants}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            results[variant].append(run(variant, seed, arguments.out.resolve(), arguments.set))
            print(f"{variant}, seed {seed}: mIoU {100 * results[variant][-1][0]['miou']:.2f}", flush=True)
    text = table(results)
    (arguments.out / "table.md").write_text(text + "\n")
    print(f"\n{text}\n\nThe runs, and table.md, are in {arguments.out}")


if __name__ == "__main__":
    main()
