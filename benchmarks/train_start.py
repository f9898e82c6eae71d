"""Where the time before the first training step goes: CPU seconds and wall seconds per part of `psanet train`.

    python benchmarks/train_start.py configs/scenes/psanet.yaml
    python benchmarks/train_start.py configs/ade20k/psanet50.yaml data.crop_size=[129,129] train.batch_size=2

Images are random ones, written to a temporary folder. CPU seconds are those of the whole process, all threads; on a
machine that others use they are the ones to compare. The first step builds the graph; the seconds of the second one,
which does the same arithmetic, are what a step takes without it. PROFILE=FILE writes a cProfile of the first step.
"""

import contextlib
import cProfile
import os
import sys
import tempfile
import time
from pathlib import Path

_STEPS = 3
_clock = [("", time.process_time(), time.perf_counter())]


def main(config_file, *overrides):
    from psanet_cli.app import quiet_libraries

    quiet_libraries()
    from psanet_tf.training import trainer

    mark("imports")
    from psanet_tf.config import load_config
    from psanet_tf.keras_api import keras

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # waits for the step to be done
            mark(f"step {batch + 1}")
            if batch == 0 and "PROFILE" in os.environ:
                profile.disable()
                profile.dump_stats(os.environ["PROFILE"])
            if batch + 1 == _STEPS:
                raise EnoughError

    def with_mark(name):
        function = getattr(trainer, name)

        def marked(*args, **kwargs):
            result = function(*args, **kwargs)
            mark(name.strip("_").replace("_", " "))
            return result

        setattr(trainer, name, marked)

    fit = keras.Model.fit

    def timed_fit(model, *args, **kwargs):
        mark("datasets and callbacks")
        return fit(model, *args, **kwargs)

    keras.Model.fit = timed_fit
    for name in ("build_strategy", "build_job", "_initial_position", "_open_run"):
        with_mark(name)
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        where = [f"data.root={folder}/data"]
        config = load_config(config_file, [*where, *overrides])
        write_images(config, Path(folder) / "data")
        _clock.append(("", time.process_time(), time.perf_counter()))
        if "PROFILE" in os.environ:
            profile.enable()
        with contextlib.suppress(EnoughError):
            trainer.train(config, f"{folder}/run", callbacks=[Clock()])


class EnoughError(Exception):
    """Ends the run after its first steps."""


def mark(name):
    _, cpu, wall = _clock[-1]
    _clock.append((name, time.process_time(), time.perf_counter()))
    print(f"{name:24}  {_clock[-1][1] - cpu:7.2f} CPU s  {_clock[-1][2] - wall:7.2f} s", flush=True)


def write_images(config, root):
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    height, width = config.data.crop_size
    for split, count in (("training", _STEPS * config.train.batch_size), ("validation", 4)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(image).save(root / "images" / split / f"{index}.jpg")
            Image.fromarray(np.ones((height, width), np.uint8)).save(root / "annotations" / split / f"{index}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
