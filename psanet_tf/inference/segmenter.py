"""`Segmenter`: one object that labels images, whatever its weights are."""

import dataclasses
import functools
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import numbered_classes
from psanet_tf.data.findings import counted
from psanet_tf.data.image_format import ImageFormat
from psanet_tf.data.scale import with_base_size
from psanet_tf.inference.attention import AttentionMaps, attention_maps
from psanet_tf.inference.given_images import GivenImage, as_pixels
from psanet_tf.inference.labeler import LabelsImages
from psanet_tf.inference.model_file import ModelFileLabeler
from psanet_tf.inference.protocols import OnDevice, build_labeler
from psanet_tf.inference.saved_model import SavedModelLabeler
from psanet_tf.models import PSANet
from psanet_tf.runtimes.model_file import exported_model
from psanet_tf.visualization.overlay import overlay
from psanet_tf.weights.checkpoints import load_trained
from psanet_tf.weights.description import description_of, images_of, temperature_of

_DEFAULT_BASE_SIZE = 512


class Segmenter:
    """Labels images with a trained network, by the protocol that belongs to its weights.

    Args:
        model: `PSANet`.
        classes: K names; default: those that the model's file carries, else "class 0", "class 1", ...
        colors: [K, 3] values 0 to 255; default: those that the model's file carries, else distinct ones.
        evaluate: `EvaluateSection`, or its keys as a mapping, such as
            ``{"protocol": "mmseg", "scale": (2048, 512)}``; default: what the model's file carries, else the paper's
            sliding window at one scale.
        whole: one pass per image at its own size instead.
        images: `psanet_tf.data.ImageFormat`, channels, dtype, mean and deviation of what is labelled; default: what the
            model's file carries, else photographs.

    Attributes:
        model: `PSANet`, or None for an exported or served model.
        classes: tuple of K names.
        colors: uint8 [K, 3].
        info: `DatasetInfo` of them, and of the images.
        evaluate: `EvaluateSection` by which images are labelled; None where they are seen whole, or for an exported or
            served model.
        path: the file, or folder of a SavedModel, that it was loaded from; None if it was not.
        protocol: "semseg" or "mmseg" (see `EvaluateSection`), of an exported or served model too; None for one pass at
            the image's own size.
        base_size: long side, in pixels, to which images are resized at scale 1; None where the protocol has none.
        temperature: what logits are divided by before the softmax: what `psanet calibrate` fitted, else 1; None for an
            exported or served model, which has it in its graph.

    Raises:
        TypeError: `model` is no PSANet.
        ValueError: another number of names or colours than classes, or of channels than the model takes; a protocol
            that the model cannot follow; nothing says how images of other channels are normalized.

    Example:
        >>> segmenter = Segmenter.load("mmseg/psanet_r50-d8_4xb2-80k_cityscapes-769x769")
        >>> labels = segmenter.labels("street.jpg")     # uint8 [H, W]
        >>> segmenter.classes[labels[200, 300]]
        'road'
    """

    def __init__(
        self,
        model: PSANet,
        classes: Sequence[str] | None = None,
        colors: Any = None,
        evaluate: EvaluateSection | Mapping[str, Any] | None = None,
        whole: bool = False,
        images: ImageFormat | None = None,
    ) -> None:
        if not isinstance(model, PSANet):
            raise TypeError(f"model must be a psanet_tf.PSANet, got {type(model).__name__}")
        known = description_of(model)
        if isinstance(evaluate, Mapping):
            evaluate = EvaluateSection.model_validate(dict(evaluate), strict=False)
        evaluate = evaluate or (known and known.evaluate) or EvaluateSection()
        self.model = model
        self.path = None
        self.info = _info(model, known and known.info, classes, colors, images)
        self.evaluate = None if whole else _with_base_size(evaluate, known and known.info, model)
        self.protocol = self.evaluate and self.evaluate.protocol
        self.base_size = self.evaluate and self.evaluate.base_size
        self.temperature = temperature_of(model)
        self._labeler = OnDevice(build_labeler(model, self.evaluate, self.info.images), _devices()[0])

    @classmethod
    def load(
        cls,
        source: str | os.PathLike,
        config: Any = None,
        overrides: Sequence[str] = (),
        whole: bool = False,
    ) -> "Segmenter":
        """Loads trained weights, wherever they are.

        Args:
            source: name of published weights (``psanet weights list``) or a URL, which are fetched; run folder;
                ``.keras``, ``.pth`` or ``.safetensors`` file; or the folder of a SavedModel, or ``.onnx``, ``.xml`` or
                ``.tflite`` file, that `psanet export` wrote.
            config: `Config`, or the path of one; default: that of the run folder, or what the weights bring along.
            overrides: strings ``"evaluate.key=value"``.
            whole: one pass per image at its own size.

        Raises:
            ValueError, OSError: weights, configuration or overrides that cannot be used; the message says why.
        """
        if exported := exported_model(source):
            kind = "a SavedModel" if exported.is_dir() else "an exported model"
            if config or overrides or whole:
                raise ValueError(
                    f"{source} is {kind}: its sizes and scales were fixed when it was exported, "
                    "so it takes neither a configuration nor overrides nor --whole"
                )
            labeler = (SavedModelLabeler if exported.is_dir() else ModelFileLabeler)(exported)
            segmenter = cls.of_labeler(labeler)
            segmenter.path = exported
            return segmenter
        with tf.device(_devices()[0]):
            trained = load_trained(source, config, overrides)
        if trained.info is None:
            print(
                f"note: nothing names the classes of {source}: they are called class 0, class 1, ...", file=sys.stderr
            )
        segmenter = cls(trained.model, evaluate=trained.evaluate, whole=whole)
        segmenter.path = trained.path
        return segmenter

    @classmethod
    def of_labeler(cls, labeler: Any) -> "Segmenter":
        """A segmenter around an exported or served model.

        Args:
            labeler: object with ``labels([H, W, C]) -> uint8 [H, W]``, ``info`` (DatasetInfo), ``protocol`` and
                ``base_size``.
        """
        segmenter = cls.__new__(cls)
        segmenter.model = segmenter.evaluate = segmenter.path = segmenter.temperature = None
        segmenter.info, segmenter.protocol, segmenter.base_size = labeler.info, labeler.protocol, labeler.base_size
        segmenter._labeler = labeler
        return segmenter

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.class_names

    @property
    def colors(self) -> np.ndarray:
        return self.info.colors

    @property
    def images(self) -> ImageFormat:
        """Channels, dtype and normalization of the images."""
        return self.info.images

    @functools.cached_property
    def labelers(self) -> tuple[LabelsImages, ...]:
        """What labels arrays [H, W, C], one object per device: all GPUs, or the CPU."""
        others = []
        for device in _devices()[1:] if self.model is not None else ():
            with tf.device(device):
                copy = PSANet.from_config(self.model.get_config())
                copy.set_weights(self.model.get_weights())
                others.append(OnDevice(build_labeler(copy, self.evaluate, self.images), device))
        return (self._labeler, *others)

    def labels(self, image: GivenImage) -> np.ndarray:
        """The most probable class of every pixel.

        Args:
            image: path, bytes of a file, PIL image (all turned as their orientation tag says), or an array: uint8
                [H, W, 3], RGB, or for other `images` [H, W, C] of their dtype.

        Returns:
            uint8 [H, W], indices of `classes`.

        Raises:
            TypeError, ValueError, FileNotFoundError: `image` is none of these; see `as_pixels`.
        """
        return self._labeler.labels(as_pixels(image, self.images))

    def probabilities(self, image: GivenImage) -> np.ndarray:
        """float32 [H, W, K], summing to 1 over the classes; arguments and errors as of `labels`.

        Raises:
            ValueError: also for an exported SavedModel or a served model, which give labels only.
        """
        return self._giving("probabilities")(as_pixels(image, self.images))

    def confidence(self, image: GivenImage) -> np.ndarray:
        """The probability of the label of every pixel, float32 [H, W]; arguments and errors as of `probabilities`."""
        return self._giving("confidence").confidence(as_pixels(image, self.images))

    def overlay(self, image: GivenImage, legend: bool = True) -> np.ndarray:
        """The image with its labels laid over, and a legend of the classes in it where there is room for one.

        Returns:
            uint8 [H, W, 3] (see `ImageFormat.picture`); arguments and errors as of `labels`.
        """
        pixels = as_pixels(image, self.images)
        names = self.classes if legend else None
        return overlay(self.images.picture(pixels), self._labeler.labels(pixels), self.colors, names)

    def attention(self, image: GivenImage, points: Sequence[tuple[float, float]]) -> AttentionMaps:
        """Where points of the image gather from and whom they inform; see `attention_maps`.

        Args:
            image: as of `labels`.
            points: sequence of (x, y), pixels from the left and from the top.

        Raises:
            ValueError: a network without attention or a served model; a point outside of the image.
        """
        if isinstance(self._labeler, (SavedModelLabeler, ModelFileLabeler)):
            return self._labeler.attention(as_pixels(image, self.images), points)
        self._giving("attention")
        return attention_maps(self.model, as_pixels(image, self.images), points, self.images)

    def _giving(self, what):
        if self.model is None and not isinstance(self._labeler, ModelFileLabeler):
            raise ValueError(
                f"an exported or served model gives labels only: for {what} load the weights that it was made of"
            )
        return self._labeler


def _devices():
    return [device.name for device in tf.config.list_logical_devices("GPU")] or ["CPU:0"]


def _info(model, known, classes, colors, images):
    count = model.num_classes
    images = images_of(model) if images is None else images
    if images.channels != model.input_shape[-1]:
        raise ValueError(
            f"images: {model.name!r} takes {counted(model.input_shape[-1], 'channel')}, got {images.in_words()}"
        )
    known = dataclasses.replace(known or numbered_classes(count), images=images)
    if classes is None and colors is None:
        return known
    classes = known.class_names if classes is None else tuple(classes)
    colors = known.colors if colors is None else np.asarray(colors)
    if len(classes) != count:
        raise ValueError(f"classes: the model has {count}, got {len(classes)} names")
    return dataclasses.replace(known, class_names=classes, colors=colors)


def _with_base_size(evaluate, info, model):
    if evaluate.protocol == "mmseg" or evaluate.base_size is not None:
        return evaluate
    # A file of weights that names no classes may have a calibration, and so a description, all the same.
    if info is None or (info.name == "unnamed" and info.long_side is None):
        print(
            f"warning: nothing tells at which scale {model.name!r} was trained: images are resized to a long side of "
            f"{_DEFAULT_BASE_SIZE} pixels; set evaluate.base_size",
            file=sys.stderr,
        )
        return evaluate.model_copy(update={"base_size": _DEFAULT_BASE_SIZE})
    return with_base_size(evaluate, info)
