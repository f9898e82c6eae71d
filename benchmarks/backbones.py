"""Twelve backbones through a network's whole life, for the table of docs/backbones.md.

    python benchmarks/backbones.py                      # both parts of all, about half an hour; writes the table
    python benchmarks/backbones.py --parts check        # built, trained, saved, loaded, exported
    python benchmarks/backbones.py --parts time         # a forward pass; wants the machine to itself

What was measured is kept in --results, and the table holds the newest of every part. Each step is a process of its own.
The check is at 97 x 97: two training steps, in which the backbone's weights have to move; the `.keras` file, loaded by
a process that has not built the network; the SavedModel that this exports, loaded again; the same logits all along.
The time is that of the whole network (attention, head and resize) at 465 x 465, float32, batch 1.
"""

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = (
    *("ResNet50", "ResNet101", "ResNet50V2", "ResNet101V2", "EfficientNetV2B0", "EfficientNetV2S"),
    *("ConvNeXtTiny", "ConvNeXtSmall", "MobileNetV3Small", "MobileNetV3Large", "DenseNet121", "Xception"),
)
CLASSES, SIZE, CROP = 21, 97, 465
DOCUMENT = Path(__file__).parents[1] / "docs" / "backbones.md"
_TABLE = re.compile(r"(<!-- table -->\n).*?(<!-- end of table -->)", re.DOTALL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--parts", nargs="+", choices=("check", "time"), default=["check", "time"])
    parser.add_argument("--results", type=Path, default=DOCUMENT.parent / "benchmarks" / "backbones.json")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="file whose table is written")
    parser.add_argument(
        "--repetitions", type=int, default=5, help="timings of a forward pass, of which the median counts"
    )
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, *rest = arguments.step
        print(json.dumps(STEPS[step](*rest)))
        return
    results = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
    for name in arguments.names:
        entry = results.setdefault(name, {})
        if "check" in arguments.parts:
            with tempfile.TemporaryDirectory() as folder:
                entry |= _step("train", name, folder) | _step("export", name, folder)
        if "time" in arguments.parts:
            entry |= _step("time", name, str(arguments.repetitions)) | {"machine": _machine()}
        print(name, json.dumps(entry), flush=True)
        arguments.results.write_text(json.dumps(results, indent=1) + "\n")
    table = _table(results)
    text = arguments.document.read_text(encoding="utf-8")
    arguments.document.write_text(_TABLE.sub(lambda found: found[1] + table + found[2], text), encoding="utf-8")
    print(table)


def _step(step, *arguments):
    """What a step prints, from a process of its own."""
    command = [sys.executable, __file__, "--step", step, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _network(name, size):
    from psanet_tf import PSANet

    return PSANet(CLASSES, backbone=name, input_shape=(size, size, 3))


def _images():
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.normal(size=(2, SIZE, SIZE, 3)).astype("float32"), rng.integers(0, CLASSES, (2, SIZE, SIZE))


def train(name, folder):
    """Builds, takes two training steps, saves; figures about the network."""
    import numpy as np

    from psanet_tf.keras_api import keras

    keras.utils.set_random_seed(0)
    model = _network(name, SIZE)
    images, labels = _images()
    _keep_scale(model, images)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3), loss={"logits": loss, "aux_logits": loss}, jit_compile=False)
    before = [np.asarray(weight).copy() for weight in model.get_layer("backbone").trainable_weights]
    losses = [model.train_on_batch(images, {"logits": labels, "aux_logits": labels})[0] for _ in range(2)]
    if not np.isfinite(losses).all():
        raise AssertionError(f"{name}: losses {losses}")
    after = model.get_layer("backbone").trainable_weights
    moved = [abs(np.asarray(weight) - old).max() > 0 for weight, old in zip(after, before, strict=True)]
    if sum(moved) < 0.75 * len(moved):  # ConvNeXt's layers begin scaled by 1e-6: steps below float32's
        raise AssertionError(f"{name}: {sum(moved)} of {len(moved)} weights were trained")
    model.save(f"{folder}/model.keras")
    logits = np.asarray(model.inference()(images[:1], training=False))
    np.save(f"{folder}/logits.npy", logits)
    backbone = model.get_layer("backbone")
    return {
        "parameters": sum(int(np.prod(weight.shape)) for weight in backbone.weights),
        "network parameters": model.count_params(),
        "output stride": model.get_config()["output_stride"],
        "features": list(model.feature_size((SIZE, SIZE))),
        "preprocessing": model.get_config()["backbone_preprocessing"],
        "trained": f"{sum(moved)} of {len(moved)}",
    }


def _keep_scale(model, images):
    """Kernels of He et al. 2015: with Keras's initial ones some networks answer the same whatever the image is.

    And shifts that let most of it through the ReLUs, and statistics of the images, as after training: else float32's
    rounding grows from layer to layer, until two right answers are different ones.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) > 1:
            inputs = np.prod(weight.shape[:-1] if weight.shape[-1] > 1 else weight.shape[:2])
            weight.assign(rng.standard_normal(weight.shape, "float32") * np.float32((2 / inputs) ** 0.5))
        elif weight.name == "beta":
            weight.assign(rng.normal(2, 0.5, weight.shape))
    momenta = {layer: layer.momentum for layer in model._flatten_layers() if hasattr(layer, "moving_variance")}
    for layer in momenta:
        layer.momentum = 0.0
    model(images, training=True)
    for layer, momentum in momenta.items():
        layer.momentum = momentum


def export(name, folder):
    """Loads in this process, which has not built it; exports, loads that; largest differences."""
    import numpy as np
    import tensorflow as tf

    import psanet_tf  # noqa: F401  (registers the network with Keras)
    from psanet_tf.data.catalog import dataset_info
    from psanet_tf.data.normalization import normalize
    from psanet_tf.export.saved_model import export_saved_model
    from psanet_tf.keras_api import keras

    model = keras.saving.load_model(f"{folder}/model.keras", compile=False)
    expected = np.load(f"{folder}/logits.npy")
    images, _ = _images()
    logits = np.asarray(model.inference()(images[:1], training=False))
    export_saved_model(model, f"{folder}/exported", dataset_info("voc2012"), warm_up=False)
    photographs = np.random.default_rng(1).integers(0, 256, (1, SIZE, SIZE, 3)).astype("uint8")
    served = tf.saved_model.load(f"{folder}/exported/1").signatures["probabilities"]
    found = served(images=tf.constant(photographs))["probabilities"].numpy()
    own = tf.nn.softmax(model.inference()(normalize(photographs), training=False)).numpy()
    spread = float(own.std(axis=(1, 2)).max())
    if spread < 1e-3:
        raise AssertionError(f"{name}: probabilities are the same everywhere, which proves nothing ({spread})")
    if abs(logits - expected).max() > 1e-5 * abs(expected).max() or abs(found - own).max() > 1e-4:
        raise AssertionError(f"{name}: {abs(logits - expected).max()}, {abs(found - own).max()}")
    return {"loaded": float(abs(logits - expected).max()), "exported": float(abs(found - own).max()), "spread": spread}


def forward_time(name, repetitions):
    """Seconds of a forward pass at the paper's crop."""
    import numpy as np
    import tensorflow as tf

    inference = _network(name, CROP).inference()
    images = tf.constant(np.random.default_rng(0).normal(size=(1, CROP, CROP, 3)).astype("float32"))
    run = tf.function(lambda x: inference(x, training=False))
    run(images)
    times = []
    for _ in range(int(repetitions)):
        start = time.perf_counter()
        run(images).numpy()
        times.append(time.perf_counter() - start)
    return {"seconds": sorted(times)[len(times) // 2]}


STEPS = {"train": train, "export": export, "time": forward_time}


def _machine():
    model = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return f"{model.partition(':')[2].strip() or model}, {os.cpu_count()} cores, {datetime.date.today()}"


def _lines(path):
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else []


def _table(results):
    rows = [
        "| backbone | images as | parameters, millions: backbone | whole network | output stride | features at 97 | "
        "file loaded, difference | exported, difference | forward pass at 465 |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in NAMES:
        entry = results.get(name, {})
        cells = ["", "", "", "", "", "", ""]
        if "exported" in entry:
            cells = [
                entry["preprocessing"],
                f"{entry['parameters'] / 1e6:.1f}",
                f"{entry['network parameters'] / 1e6:.1f}",
                str(entry["output stride"]),
                " x ".join(map(str, entry["features"])),
                f"{entry['loaded']:.0e}" if entry["loaded"] else "0",
                f"{entry['exported']:.0e}" if entry["exported"] else "0",
            ]
        rows.append(f"| {name} | {' | '.join(cells)} | {_seconds(entry)} |")
    machines = sorted({entry["machine"] for entry in results.values() if "machine" in entry})
    note = f"\nTimes: {'; '.join(machines)}.\n" if machines else ""
    return "\n".join(rows) + "\n" + note


def _seconds(entry):
    return f"{entry['seconds']:.2f} s" if "seconds" in entry else "not measured yet"


if __name__ == "__main__":
    main()
