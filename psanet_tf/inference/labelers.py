"""From weights to objects that label images: a sliding window or a single pass, on every device."""

import dataclasses
import sys
from pathlib import Path

import tensorflow as tf

from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.scale import with_base_size
from psanet_tf.inference.sliding_window import SlidingWindow
from psanet_tf.inference.whole_image import WholeImage, any_size
from psanet_tf.weights.checkpoints import load_trained

_DEFAULT_BASE_SIZE = 512


@dataclasses.dataclass(frozen=True)
class Labelers:
    """A network, ready to label images.

    Attributes:
        labelers: one per device, each with ``labels(uint8 [H, W, 3]) -> uint8 [H, W]``.
        model: the `PSANet` on the first device.
        info: DatasetInfo, or None if the weights say nothing about their classes.
        path: the file that the weights were read from.
        evaluate: `EvaluateSection` by which they label, with a `base_size`; None where they see images whole.
    """

    labelers: tuple
    model: object
    info: DatasetInfo | None
    path: Path
    evaluate: EvaluateSection | None


def load_labelers(weights, config=None, section=None, whole=False, devices=None):
    """Loads a network once per device.

    Args:
        weights: run folder, ``.keras`` file, or ``.pth`` file of the original implementation.
        config: Config or the path of one, as of `load_trained`; needed for ``.pth``.
        section: `EvaluateSection`; default: the paper's single-scale protocol.
        whole: label images in one pass at their own size instead of crop by crop.
        devices: names; default: all GPUs, or the CPU.

    Returns:
        Labelers.

    Raises:
        ValueError, OSError: weights that cannot be used; `whole` with a network that works at one size only.
    """
    devices = devices or [device.name for device in tf.config.list_logical_devices("GPU")] or ["CPU:0"]
    labelers, models = [], []
    for device in devices:
        with tf.device(device):
            trained = load_trained(weights, config)
            models.append(trained.model)
            if not whole:
                section = _with_base_size(section or EvaluateSection(), trained)
            labeler = whole_image(trained.model) if whole else sliding_window(trained.model, section)
            labelers.append(OnDevice(labeler, device))
    return Labelers(tuple(labelers), models[0], trained.info, trained.path, None if whole else section)


def _with_base_size(section, trained):
    if section.base_size is None and trained.info is None:
        print(
            f"warning: nothing beside {trained.path} tells at which scale the network was trained: images are "
            f"resized to a long side of {_DEFAULT_BASE_SIZE} pixels; give the configuration, with evaluate.base_size",
            file=sys.stderr,
        )
        return section.model_copy(update={"base_size": _DEFAULT_BASE_SIZE})
    return section if section.base_size else with_base_size(section, trained.info)


def sliding_window(model, section):
    """`SlidingWindow` around a `PSANet` with the crop that it was built for."""
    crop_size = tuple(model.input_shape[1:3])
    if None in crop_size:
        raise ValueError(f"{model.name!r} takes any size, so a sliding window cannot tell its crop; label images whole")
    return SlidingWindow(
        _inference(model, crop_size),
        model.num_classes,
        crop_size,
        base_size=section.base_size,
        scales=section.scales,
        flip=section.flip,
        stride_rate=section.stride_rate,
        batch_size=section.batch_size,
    )


def whole_image(model):
    """`WholeImage` around a `PSANet`, rebuilt for any size if need be."""
    model = any_size(model)
    return WholeImage(_inference(model, (None, None)), model.num_classes)


class OnDevice:
    """Runs a labeler's work on one device, whatever thread calls it."""

    def __init__(self, labeler, device):
        self.labeler = labeler
        self.device = device

    def labels(self, image):
        with tf.device(self.device):
            return self.labeler.labels(image)


def _inference(model, size):
    inference = model.inference()
    return tf.function(
        lambda images: inference(images, training=False),
        input_signature=[tf.TensorSpec([None, *size, 3], tf.float32)],
    )
