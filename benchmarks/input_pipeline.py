"""Images per second of the input pipeline with the paper's full augmentation, against OpenCV with PyTorch's DataLoader.

    python benchmarks/input_pipeline.py --images 200 --rounds 5

Images are 512x683 JPEG + PNG pairs in ADE20K's layout, the crop is 465x465, batches of 16. All are measured in turns
in one run: reading and decoding alone, this package's `training_dataset`, and, if torch and cv2 are installed, the
chain of the paper's public implementation (scale, rotate, blur, mirror, crop in OpenCV) in a DataLoader, on float32
images as that implementation has them and on uint8 ones.
"""

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from psanet_tf.config import Config
from psanet_tf.data.catalog import info_of
from psanet_tf.data.normalization import MEAN, STD
from psanet_tf.data.readers import list_examples

SIZE, CROP, BATCH = (512, 683), 465, 16


def write_images(root, count):
    """Images with the spectrum of photographs (about 75 KB each), labels of a dozen regions."""
    for folder in ("images/training", "annotations/training"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        rng = np.random.default_rng(index)
        image = sum(_smooth(rng, 2**octave, 3) / 2**octave for octave in range(2, 9)) * 4
        image += rng.normal(0, 4, image.shape) - 60
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"images/training/{index:05}.jpg", quality=88)
        coarse = rng.integers(0, 151, (4, 5)).astype(np.uint8)
        label = Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.NEAREST).rotate(rng.uniform(-30, 30))
        label.save(root / f"annotations/training/{index:05}.png")


def _smooth(rng, cells, channels):
    coarse = rng.integers(0, 256, (cells, cells, channels)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BICUBIC), np.float32)


def tensorflow_batches(config):
    from psanet_tf.data.pipeline import training_dataset

    iterator = iter(training_dataset(config, BATCH))
    return lambda: next(iterator)[0].shape[0]


def decoded_batches(config):
    import tensorflow as tf

    from psanet_tf.data.decoding import decode_image, label_values

    examples = list_examples(config.data, "training")
    paths = [(str(example.image_path), str(example.label_path)) for example in examples]
    dataset = tf.data.Dataset.from_tensor_slices(paths).repeat()
    dataset = dataset.map(
        lambda pair: (
            tf.shape(decode_image(tf.io.read_file(pair[0]))),
            tf.shape(label_values(tf.io.read_file(pair[1]))),
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    iterator = iter(dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE))
    return lambda: next(iterator)[0].shape[0]


def opencv_batches(config, workers, dtype):
    import torch

    chain = OpenCVChain(config, dtype)
    loader = torch.utils.data.DataLoader(
        chain, batch_size=BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True
    )
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    return lambda: next(batches)[0].shape[0]


class OpenCVChain:
    """The augmentation of the paper's public implementation, one OpenCV call after the other on the whole image."""

    def __init__(self, config, dtype):
        self.examples = list_examples(config.data, "training")
        self.dtype = dtype
        self.ignore = info_of(config.data).ignore_label

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        import cv2
        import torch

        cv2.setNumThreads(0)
        rng = np.random.default_rng()
        example = self.examples[index]
        image = cv2.cvtColor(cv2.imread(str(example.image_path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        image = image.astype(self.dtype)
        label = cv2.imread(str(example.label_path), cv2.IMREAD_GRAYSCALE) - np.uint8(1)
        fill = tuple(float(value) for value in MEAN)

        scale = rng.uniform(0.5, 2)
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        height, width = label.shape
        if rng.random() < 0.5:
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-10, 10), 1)
            image = cv2.warpAffine(
                image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
            )
            label = cv2.warpAffine(
                label,
                matrix,
                (width, height),
                flags=cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=self.ignore,
            )
        if rng.random() < 0.5:
            image = cv2.GaussianBlur(image, (5, 5), 0)
        if rng.random() < 0.5:
            image, label = cv2.flip(image, 1), cv2.flip(label, 1)
        missing = [max(CROP - height, 0), max(CROP - width, 0)]
        if any(missing):
            border = (missing[0] // 2, missing[0] - missing[0] // 2, missing[1] // 2, missing[1] - missing[1] // 2)
            image = cv2.copyMakeBorder(image, *border, cv2.BORDER_CONSTANT, value=fill)
            label = cv2.copyMakeBorder(label, *border, cv2.BORDER_CONSTANT, value=self.ignore)
        row, column = [int(rng.integers(0, size - CROP + 1)) for size in label.shape]
        image = image[row : row + CROP, column : column + CROP]
        label = label[row : row + CROP, column : column + CROP]
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()
        for channel, mean, std in zip(tensor, MEAN.tolist(), STD.tolist(), strict=True):
            channel.sub_(mean).div_(std)
        return tensor, torch.from_numpy(label.astype(np.int64))


def images_per_second(batches, seconds):
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += batches()
    return count / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: arguments.cores]
    os.sched_setaffinity(0, cores)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, arguments.images)
        config = Config.model_validate({"data": {"root": str(root), "crop_size": (CROP, CROP)}})
        # The loaders' processes start before TensorFlow has threads.
        makers = {}
        try:
            import cv2
            import torch

            versions = f"OpenCV {cv2.__version__}, PyTorch {torch.__version__}"
            makers["OpenCV + DataLoader, float32"] = lambda: opencv_batches(config, len(cores), np.float32)
            makers["OpenCV + DataLoader, uint8"] = lambda: opencv_batches(config, len(cores), np.uint8)
        except ImportError:
            versions = "OpenCV or PyTorch is not installed"
        makers["psanet_tf"] = lambda: tensorflow_batches(config)
        makers["reading and decoding alone"] = lambda: decoded_batches(config)
        measured = {name: [] for name in makers}
        for _ in range(arguments.rounds):
            for name, make in makers.items():
                # Made anew each time: what is measured alone must run alone.
                batches = make()
                for _ in range(3):
                    batches()
                measured[name].append(images_per_second(batches, arguments.seconds))
                del batches
    import tensorflow as tf

    print(f"{platform.machine()}, {len(cores)} cores, TensorFlow {tf.__version__}, {versions}")
    print(f"{arguments.rounds} rounds of {arguments.seconds:g} s; load average {os.getloadavg()[0]:.1f}")
    print("| | images/s (median) | smallest to largest |\n| --- | ---: | ---: |")
    for name, rates in measured.items():
        print(f"| {name} | {statistics.median(rates):.0f} | {min(rates):.0f} to {max(rates):.0f} |")
    for name in makers:
        if name.startswith("OpenCV"):
            ratios = [ours / theirs for ours, theirs in zip(measured["psanet_tf"], measured[name], strict=True)]
            print(f"psanet_tf / ({name}): {statistics.median(ratios):.2f} (median of the rounds' ratios)")


if __name__ == "__main__":
    main()
