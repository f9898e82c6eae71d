"""Seconds and memory of a training step of PSANet-50, crop 465, on synthetic images.

    python benchmarks/train_step.py                      # batch 2, float32 and mixed_bfloat16
    python benchmarks/train_step.py --depth 101 --crop 705 --batch 4 --precision mixed_bfloat16

Each precision runs in a process of its own, whose largest resident memory is the figure for CPUs (for a GPU: the
allocator's peak). CPU seconds, summed over cores, depend little on what else the machine does. The step is
`model.fit`'s, with the recipe's loss and optimizer; the first ones are left out.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

WARM_UP = 2


def measure(arguments, precision):
    """{"seconds": [...], "cpu_seconds": [...], "gigabytes": ..., "device": ...} of one precision, in this process."""
    import numpy as np
    import tensorflow as tf

    from psanet_tf import PSANet
    from psanet_tf.config import TrainSection
    from psanet_tf.data.catalog import dataset_info
    from psanet_tf.keras_api import keras
    from psanet_tf.training.recipe import build_losses, build_optimizer

    class Clock(keras.callbacks.Callback):
        times = ()

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # waits for the step to be done
            self.times = (*self.times, (time.perf_counter(), time.process_time()))

    info = dataset_info("ade20k")
    section = TrainSection(precision=precision)
    model = PSANet(
        info.num_classes, depth=arguments.depth, input_shape=(arguments.crop, arguments.crop, 3), dtype=precision
    )
    model.compile(
        build_optimizer(section, 1000),
        **build_losses(section, info),
        auto_scale_loss=False,
        jit_compile=arguments.xla,
    )
    rng = np.random.default_rng(0)
    shape = (arguments.batch, arguments.crop, arguments.crop)
    images = rng.normal(size=(*shape, 3)).astype(np.float32)
    labels = rng.integers(0, info.num_classes, shape).astype(np.uint8)
    batch = (images, {"logits": labels, "aux_logits": labels})
    clock = Clock()
    steps = WARM_UP + arguments.steps
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    model.fit(dataset, steps_per_epoch=steps, shuffle=False, callbacks=[clock], verbose=0)
    seconds, cpu_seconds = np.diff(clock.times, axis=0)[WARM_UP - 1 :].T.tolist()
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        device = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])["device_name"]
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    else:
        device = f"{os.cpu_count()} CPU cores"
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "gigabytes": peak / 1e9, "device": device}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=50, choices=(50, 101, 152))
    parser.add_argument("--crop", type=int, default=465, help="8n+1")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed")
    parser.add_argument("--precision", action="append", choices=("float32", "mixed_bfloat16", "mixed_float16"))
    parser.add_argument("--xla", action="store_true", help="jit_compile=True")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments, arguments.worker)))
        return
    print("| precision | device | seconds per step, median (range) | CPU seconds per step | images/s | peak memory |")
    print("| --- | --- | ---: | ---: | ---: | ---: |", flush=True)
    for precision in arguments.precision or ("float32", "mixed_bfloat16"):
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", precision]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        result = json.loads(output.strip().splitlines()[-1])
        seconds, cpu_seconds = result["seconds"], result["cpu_seconds"]
        median = statistics.median(seconds)
        print(
            f"| {precision} | {result['device']} | {median:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) "
            f"| {statistics.median(cpu_seconds):.1f} | {arguments.batch / median:.2f} | {result['gigabytes']:.2f} GB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
