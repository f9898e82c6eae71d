"""Measures the sliding-window protocol: speed against NumPy and OpenCV, and peak memory.

Needs OpenCV (pip install opencv-python-headless) for speed.

    python benchmarks/evaluate.py speed     # images per second, both versions in the same run
    python benchmarks/evaluate.py memory    # peak resident memory, each case in a process of its own

The network is a fixed, small cost (one 8x8 convolution and a resize), so that the protocol is what is measured. The
NumPy and OpenCV version is the protocol written down plainly, crop by crop, as the public implementation has it.
"""

import argparse
import math
import os
import resource
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
MEMORY_CASES = {
    # name: (height, width, classes, crop, base size, scales, what is computed)
    "1024x2048, 19 classes, six scales, labels": (1024, 2048, 19, 705, 2048, PAPER_SCALES, "labels"),
    "1024x2048, 19 classes, six scales, probabilities": (1024, 2048, 19, 705, 2048, PAPER_SCALES, "probabilities"),
    "8000x6000, 150 classes, one scale, labels": (8000, 6000, 150, 465, 512, (1.0,), "labels"),
    "8000x6000, 150 classes, six scales, labels": (8000, 6000, 150, 465, 512, PAPER_SCALES, "labels"),
}


def fixed_cost_network(classes, crop):
    """Normalized crops [B, h, w, 3] -> logits [B, h, w, classes], as a traced function."""
    import tensorflow as tf

    kernel = tf.constant(np.random.default_rng(0).normal(size=(8, 8, 3, classes)) / 8, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, crop, crop, 3])])
    def predict(crops):
        return tf.image.resize(tf.nn.conv2d(crops, kernel, 8, "SAME"), (crop, crop))

    return predict


def plain_labels(predict, image, classes, crop, base_size, scales, mean, std):
    """The protocol in NumPy and OpenCV; uint8 [H, W]."""
    import cv2

    height, width = image.shape[:2]
    total = np.zeros((height, width, classes), np.float32)
    for scale in scales:
        long_side = round(scale * base_size)
        new_height = long_side if height > width else round(long_side / width * height)
        new_width = long_side if height <= width else round(long_side / height * width)
        resized = cv2.resize(image.astype(np.float32), (new_width, new_height), interpolation=cv2.INTER_LINEAR)
        below, right = max(0, crop - new_height), max(0, crop - new_width)
        top, left = below // 2, right // 2
        padded = cv2.copyMakeBorder(
            resized, top, below - top, left, right - left, cv2.BORDER_CONSTANT, value=[float(v) for v in mean]
        )
        full_height, full_width = padded.shape[:2]
        stride = math.ceil(crop * 2 / 3)
        sums = np.zeros((full_height, full_width, classes), np.float32)
        counts = np.zeros((full_height, full_width, 1), np.float32)
        for row in range(math.ceil((full_height - crop) / stride) + 1):
            for column in range(math.ceil((full_width - crop) / stride) + 1):
                y, x = min(row * stride, full_height - crop), min(column * stride, full_width - crop)
                normalized = (padded[y : y + crop, x : x + crop] - mean) / std
                logits = predict(np.stack([normalized, normalized[:, ::-1]])).numpy()
                logits -= logits.max(axis=-1, keepdims=True)
                probability = np.exp(logits, out=logits)
                probability /= probability.sum(axis=-1, keepdims=True)
                sums[y : y + crop, x : x + crop] += (probability[0] + probability[1][:, ::-1]) / 2
                counts[y : y + crop, x : x + crop] += 1
        sums /= counts
        cut = sums[top : top + new_height, left : left + new_width]
        # OpenCV resizes up to four channels with its fast code, and no more than 128 at all.
        for first in range(0, classes, 4):
            part = cv2.resize(np.ascontiguousarray(cut[..., first : first + 4]), (width, height))
            total[..., first : first + 4] += part.reshape(height, width, -1)
    return np.argmax(total, axis=-1).astype(np.uint8)


def random_image(height, width, seed=0):
    """Smooth random image, so that neighbouring pixels have something to do with each other."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3)).astype(np.uint8)
    return np.kron(small, np.ones((16, 16, 1), np.uint8))[:height, :width]


def measure_speed(height=512, width=683, classes=150, crop=465, base_size=512, scales=PAPER_SCALES, rounds=5):
    import cv2
    import tensorflow as tf

    from psanet_tf import SlidingWindow
    from psanet_tf.data.normalization import MEAN, STD

    image = random_image(height, width)
    predict = fixed_cost_network(classes, crop)
    window = SlidingWindow(predict, classes, (crop, crop), base_size, scales)
    versions = {
        "NumPy and OpenCV": lambda: plain_labels(predict, image, classes, crop, base_size, scales, MEAN, STD),
        "psanet_tf.SlidingWindow": lambda: window.labels(image),
    }
    labels = [function() for function in versions.values()]
    agreement = (labels[0] == labels[1]).mean()
    calls = sum(_crop_count(height, width, crop, base_size, scale) for scale in scales)
    network = statistics.median(_seconds(lambda: predict(tf.zeros([2, crop, crop, 3])).numpy()) for _ in range(9))
    times = {name: [] for name in versions}
    for _ in range(rounds):
        # Taken in turns: what else the machine does then hits both.
        for name, function in versions.items():
            times[name].append(_seconds(function))
    print(
        f"{height}x{width}, {classes} classes, crop {crop}, scales {', '.join(f'{s:g}' for s in scales)}, "
        f"{calls} crops with mirror images; TensorFlow {tf.__version__}, OpenCV {cv2.__version__}, "
        f"{os.cpu_count()} cores; labels agree on {100 * agreement:.3f} %; "
        f"the network takes {calls * network:.2f} s of each"
    )
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name:26s} {1 / seconds:6.3f} images/s   {seconds:6.2f} s (median of {rounds})")
    plain, ours = medians.values()
    print(f"ratio {plain / ours:.2f}; without the network {(plain - calls * network) / (ours - calls * network):.2f}")


def measure_memory(name):
    height, width, classes, crop, base_size, scales, what = MEMORY_CASES[name]
    from psanet_tf import SlidingWindow

    predict = fixed_cost_network(classes, crop)
    window = SlidingWindow(predict, classes, (crop, crop), base_size, scales)
    image = random_image(height, width)
    seconds = _seconds(lambda: window.labels(image) if what == "labels" else window(image))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name}: peak {peak:.2f} GiB, {seconds:.1f} s", flush=True)


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _crop_count(height, width, crop, base_size, scale):
    from psanet_tf.inference.sliding_window import crop_origins, scaled_size

    sizes = scaled_size((height, width), base_size, scale)
    return math.prod(len(crop_origins(max(size, crop), crop, 2 / 3)) for size in sizes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--case", choices=list(MEMORY_CASES), help="one case of memory, in this process")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of speed")
    arguments = parser.parse_args()
    if arguments.what == "speed":
        measure_speed(rounds=arguments.rounds)
    elif arguments.case:
        measure_memory(arguments.case)
    else:
        for name in MEMORY_CASES:
            subprocess.run([sys.executable, __file__, "memory", "--case", name], check=True)


if __name__ == "__main__":
    main()
