"""Labels that `psanet suggest` chooses against random ones: mIoU over the number of labelled pictures.

    python benchmarks/suggest.py --out suggest --pools unequal --strategies random margin entropy
    python benchmarks/suggest.py --out suggest --pools plain --strategies random margin

Pictures are windows of 97 x 97 pixels, each at a random place of a synthetic scene of its own, whose four waters count
as one class: nothing in a window tells them apart. There are two pools of 480 unlabelled ones. *plain* is as they were
drawn; in *unequal* every twentieth picture shows a beacon, which is the smallest class as well.

All strategies start from the same random pictures and the network trained on them. Each round labels more pictures,
the first ones of `psanet_tf.inference.suggestion.suggest` with the network of the round before, or random ones; a new
network is trained from random weights, for the same number of steps in every round, and scored on windows of other
scenes, the same for all. What is done is kept in results.json, so that an interrupted experiment goes on. Prints the
tables of docs/benchmarks/suggest.md, means over the seeds.
"""

import argparse
import json
import os
import shutil
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from machine import processor
from PIL import Image

from psanet_tf.config import load_config
from psanet_tf.data.catalog import dataset_info
from psanet_tf.data.readers import read_image
from psanet_tf.data.scenes import KINDS, make_scene
from psanet_tf.files import atomic_file
from psanet_tf.folders import atomic_folder
from psanet_tf.inference.inputs import InputFile
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.inference.suggestion import suggest
from psanet_tf.keras_api import keras
from psanet_tf.metrics import confusion_matrix, scores_from_confusion
from psanet_tf.training.trainer import train

SIDE = 97
POOL, VALIDATION = 480, 150
RARE, RARE_SHARE, RARE_PIXELS = "beacon", 0.05, 20
START = 16
POOLS = ("unequal", "plain")
# Arguments of `suggest`; None: random pictures.
STRATEGIES = {
    "random": None,
    "margin": {},
    "entropy": {"measure": "entropy"},
    "balanced": {"balanced": True},
}
EPOCHS, STEPS, BATCH = 3, 80, 8  # steps of an epoch

CONFIGURATION = f"""\
data:
  dataset: custom
  class_names: classes.txt
  crop_size: [{SIDE}, {SIDE}]
  augmentation: {{scale: [0.8, 1.25], rotate_probability: 0, blur_probability: 0, flip_probability: 0.5}}
model: {{blocks: [1, 1, 1, 1], width: 8}}
train:
  optimizer: adam
  learning_rate: 3e-3
  weight_decay: 0
  epochs: {EPOCHS}
  batch_size: {BATCH}
  validate_every: {EPOCHS}
  tensorboard: false
"""


def class_names():
    return [name for name in dataset_info("scenes").class_names if name not in KINDS] + ["water"]


def window(split, index):
    """(uint8 [SIDE, SIDE, 3], uint8 [SIDE, SIDE] of `class_names`): a random window of one scene."""
    scene = make_scene(0, split, index)
    top, left = np.random.default_rng([index, split == "validation"]).integers(0, scene.label.shape[0] - SIDE + 1, 2)
    names, known = dataset_info("scenes").class_names, class_names()
    classes = np.array([known.index("water" if name in KINDS else name) for name in names], np.uint8)
    place = np.s_[top : top + SIDE, left : left + SIDE]
    return scene.image[place], classes[scene.label[place]]


def write_pictures(folder):
    """All pictures, named by pool or "validation" and number."""
    with atomic_folder(folder) as temporary:
        for kind in ("images", "labels"):
            (temporary / kind).mkdir()

        def save(name, image, label):
            Image.fromarray(image).save(temporary / "images" / f"{name}.png")
            Image.fromarray(label).save(temporary / "labels" / f"{name}.png")

        for index in range(VALIDATION):
            save(f"validation_{index:04d}", *window("validation", index))
        rare = class_names().index(RARE)
        wanted = {True: round(RARE_SHARE * POOL), False: POOL - round(RARE_SHARE * POOL)}
        index = 0
        while index < POOL or any(wanted.values()):
            image, label = window("training", index)
            if index < POOL:
                save(f"plain_{index:04d}", image, label)
            pixels = np.count_nonzero(label == rare)
            # Not those of which a few pixels can be seen at a border.
            if (pixels == 0 or pixels >= RARE_PIXELS) and wanted[pixels > 0]:
                wanted[pixels > 0] -= 1
                save(f"unequal_{index:04d}", image, label)
            index += 1


def write_dataset(folder, pictures, labelled):
    """Hard links; each labelled picture as often as an epoch of fixed length needs it."""
    if folder.exists():
        shutil.rmtree(folder)
    validation = sorted(path.stem for path in (pictures / "images").glob("validation_*"))
    for split, names in (("train", np.resize(labelled, STEPS * BATCH).tolist()), ("val", validation)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
            for number, name in enumerate(names):
                os.link(pictures / kind / f"{name}.png", folder / kind / split / f"{number:04d}_{name}.png")
    (folder / "classes.txt").write_text("\n".join(class_names()) + "\n")


def score(segmenter, pictures):
    """IoU of each class on the windows for validation."""
    count, confusion = len(class_names()), 0
    for path in sorted((pictures / "images").glob("validation_*.png")):
        truth = np.asarray(Image.open(pictures / "labels" / path.name))
        confusion = confusion + confusion_matrix(segmenter.labels(read_image(path)), truth, count)
    return scores_from_confusion(confusion).iou.tolist()


class Experiment:
    """Networks, and what they score, by pool, seed, strategy and number of labelled pictures."""

    def __init__(self, out):
        self.out, self.pictures, self.file = out, out / "pictures", out / "results.json"
        if not self.pictures.exists():
            write_pictures(self.pictures)
        self.results = json.loads(self.file.read_text()) if self.file.is_file() else {}

    def pool(self, name):
        return sorted(path.stem for path in (self.pictures / "images").glob(f"{name}_*"))

    def follow(self, pool, seed, strategy, counts):
        """Trains, scores and chooses, for every one of `counts`."""
        order = np.random.default_rng(seed).permutation(self.pool(pool)).tolist()
        labelled, before = order[:START], None
        for count in counts:
            # The start is the same for all strategies.
            key = "/".join([pool, str(seed), *([strategy] if count > START else []), str(count)])
            if key in self.results:
                labelled = self.results[key]["pictures"]
            else:
                if count > START:
                    labelled = self.chosen(strategy, order, labelled, before, count)
                self.record(key, labelled, seed)
            before = self.folder(key)

    def folder(self, key):
        return self.out / "runs" / key.replace("/", "-").replace(" ", "-")

    def chosen(self, strategy, order, labelled, run, count):
        """Names of `count` pictures, those that are labelled first."""
        if STRATEGIES[strategy] is None:
            return order[:count]
        left = [
            InputFile(self.pictures / "images" / f"{name}.png", name) for name in sorted(set(order) - set(labelled))
        ]
        folder = run / f"suggestions-{strategy.replace(' ', '-')}"
        if folder.exists():
            shutil.rmtree(folder)
        found, failures = suggest(
            Segmenter.load(run), left, folder, count=count - len(labelled), **STRATEGIES[strategy]
        )
        if failures or len(found) < count - len(labelled):
            raise RuntimeError(f"{count - len(labelled)} suggestions were wanted, got {len(found)}; {failures}")
        return [*labelled, *(item.file.name for item in found)]

    def record(self, key, labelled, seed):
        """Trains on these pictures, and keeps the scores."""
        folder, start = self.folder(key), time.process_time()
        keras.utils.clear_session()
        if not (folder / "best.keras").is_file():
            data = folder.with_name(f"{folder.name}-data")
            write_dataset(data, self.pictures, labelled)
            configuration = folder.with_suffix(".yaml")
            configuration.write_text(CONFIGURATION)
            train(load_config(configuration, [f"data.root={data}", f"train.seed={seed}"]), folder)
        self.results[key] = {
            "pictures": labelled,
            "iou": score(Segmenter.load(folder), self.pictures),
            "cpu_seconds": time.process_time() - start,
        }
        with atomic_file(self.file) as temporary:
            temporary.write_text(json.dumps(self.results, indent=1))
        print(f"{key}: mIoU {100 * statistics.mean(self.results[key]['iou']):.2f}", flush=True)

    def table(self, pool, seeds, strategies, counts):
        """Markdown: mean and sample standard deviation over the seeds."""
        rare = class_names().index(RARE)
        numbers = {
            "mIoU": (lambda result: 100 * statistics.mean(result["iou"]), 2),
            f"IoU of {RARE}": (lambda result: 100 * result["iou"][rare], 2),
            "mIoU of the others": (lambda result: 100 * statistics.mean(np.delete(result["iou"], rare)), 2),
            f"pictures with a {RARE}": (lambda result: sum(map(self._shows_rare, result["pictures"])), 1),
        }
        lines = [
            f"| | labelled by | {' | '.join(map(str, counts))} |",
            "| --- | --- |" + " ---: |" * len(counts),
        ]
        for title, (number, digits) in numbers.items():
            for strategy in strategies:
                cells = []
                for count in counts:
                    part = [strategy] if count > START else []
                    keys = ["/".join([pool, str(seed), *part, str(count)]) for seed in seeds]
                    cells.append(_spread([number(self.results[key]) for key in keys], digits))
                lines.append(f"| {title} | {strategy} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _shows_rare(self, name):
        label = np.asarray(Image.open(self.pictures / "labels" / f"{name}.png"))
        return class_names().index(RARE) in label


def _spread(values, digits):
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("suggest"), help="folder for pictures, runs and results")
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--counts", type=int, nargs="+", default=[START, 32, 64], help="labelled pictures")
    arguments = parser.parse_args()
    if arguments.counts[0] != START or arguments.counts != sorted(set(arguments.counts)):
        parser.error(f"--counts must rise from {START}, got {arguments.counts}")
    experiment = Experiment(arguments.out.resolve())
    for pool in arguments.pools:
        for seed in arguments.seeds:
            for strategy in arguments.strategies:
                experiment.follow(pool, seed, strategy, arguments.counts)
    for pool in arguments.pools:
        table = experiment.table(pool, arguments.seeds, arguments.strategies, arguments.counts)
        print(f"\n{pool}\n\n{table}")
    print(f"\n{len(arguments.seeds)} seeds, {processor()}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
