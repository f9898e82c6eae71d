"""The paper's ablation in miniature: FCN, collect, distribute, both, on synthetic scenes, several seeds each.

    python benchmarks/ablation.py --out ablation-signposts --kind signposts
    python benchmarks/ablation.py --out ablation

Every run is `psanet train` and `psanet evaluate` with a configuration of configs/signposts, of whose kinds each
direction tells one half, or of configs/scenes, whose kinds need one look; the four of a folder differ in the attention
module only. Runs that are finished are not done again, so that an interrupted ablation goes on. It prints the table of
docs/ablation.md, means over the seeds; the scores of a run are in its evaluation/scores.json.

    python benchmarks/ablation.py --out ablation-convnext --backbone ConvNeXt --variants fcn psanet
    python benchmarks/ablation.py --out ablation-mobilenet --backbone MobileNetV3 --variants fcn psanet

do the same on other backbones, from random weights: a small ConvNeXt made here, and MobileNetV3Small of
keras.applications (whose squeeze-and-excitation sees the whole image in the FCN, too).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

CONFIGS = Path(__file__).parent.parent / "configs"
REPLICAS = {"scenes": 2, "signposts": 1}
VARIANTS = {"fcn": "FCN, no attention", "collect": "+ collect", "distribute": "+ distribute", "psanet": "+ both"}


def small_convnext(depths=(1, 1, 2, 1), widths=(16, 32, 64, 128)):
    """A ConvNeXt (Liu et al. 2022) of a few blocks, for pixels of -1 to 1."""
    import keras
    from keras import layers

    images = x = keras.Input((None, None, 3))
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            x = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Conv2D(width, 2 if stage else 4, strides=2 if stage else 4)(x)
        x = x if stage else layers.LayerNormalization(epsilon=1e-6)(x)
        for _ in range(depth):
            y = layers.DepthwiseConv2D(7, padding="same")(x)
            y = layers.LayerNormalization(epsilon=1e-6)(y)
            y = layers.Dense(width)(layers.Activation("gelu")(layers.Dense(4 * width)(y)))
            x = layers.Add()([x, y])
    return keras.Model(images, layers.LayerNormalization(epsilon=1e-6)(x), name="small_convnext")


def mobilenet():
    """MobileNetV3Small of keras.applications, but for its batch norms' momentum of 0.999: a training has 225 steps."""
    import keras

    model = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(None, None, 3), include_preprocessing=False
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    return model


BACKBONES = {"ConvNeXt": small_convnext, "MobileNetV3": mobilenet}


def overrides_of(backbone, out):
    """Settings that put a backbone in the place of the small ResNet of configs/scenes."""
    file = out / f"{backbone}.keras"
    if not file.is_file():
        out.mkdir(parents=True, exist_ok=True)
        BACKBONES[backbone]().save(file)
    return ["model.blocks=null", f"model.backbone={file}", "model.backbone_preprocessing=tf"]


def run(kind, variant, seed, out, extra=()):
    """Trains and scores one network; returns its scores and the seconds of the training."""
    folder = out / f"{variant}-{seed}"
    scores, seconds = folder / "evaluation" / "scores.json", folder / "seconds.json"
    if not scores.is_file():
        start = time.monotonic()
        values = [
            f"train.seed={seed}",
            f"data.root={out / kind}",
            "train.tensorboard=false",
            f"train.cpu_replicas={REPLICAS[kind]}",
            *extra,
        ]
        overrides = [argument for value in values for argument in ("--set", value)]
        config = CONFIGS / kind / f"{variant}.yaml"
        _psanet("train", "--config", config, "--run-dir", folder, *overrides)
        seconds.write_text(json.dumps(time.monotonic() - start))
        _psanet("evaluate", "--weights", folder)
    return json.loads(scores.read_text()), json.loads(seconds.read_text())


def table(kind, results):
    """Markdown: mean and sample standard deviation over the seeds, in percent."""
    from psanet_tf.data import scenes, signposts

    def mean_iou(names):
        return lambda scores: statistics.mean(row["iou"] for row in scores["classes"] if row["name"] in names)

    if kind == "scenes":
        context = {"IoU of the waters": mean_iou(scenes.KINDS)}
    else:
        context = {"IoU of the waters": mean_iou(signposts.WATERS), "IoU of the fields": mean_iou(signposts.FIELDS)}
    columns = {
        "mIoU": lambda scores: scores["miou"],
        **context,
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
    parser.add_argument("--kind", choices=list(REPLICAS), default="scenes", help="of scenes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--backbone", choices=BACKBONES, help="in place of the small ResNet")
    arguments = parser.parse_args()
    if arguments.backbone and arguments.kind != "scenes":
        parser.error(f"--backbone goes with --kind scenes: {arguments.kind} are made for the small ResNet's reach")
    out = arguments.out.resolve()
    extra = [*(overrides_of(arguments.backbone, out) if arguments.backbone else []), *arguments.set]
    results = {variant: [] for variant in arguments.variants}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            results[variant].append(run(arguments.kind, variant, seed, out, extra))
            print(f"{variant}, seed {seed}: mIoU {100 * results[variant][-1][0]['miou']:.2f}", flush=True)
    text = table(arguments.kind, results)
    (arguments.out / "table.md").write_text(text + "\n")
    print(f"\n{text}\n\nThe runs, and table.md, are in {arguments.out}")


if __name__ == "__main__":
    main()
