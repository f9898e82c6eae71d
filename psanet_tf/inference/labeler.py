"""What all ways of labelling images have in common: probabilities that come in bands, and what is made of them."""

import abc
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.inference.pixel_logits import PixelLogits

MAX_CLASSES = 254  # label images hold one byte per pixel, and 255 marks ignored ones


class LabelsImages(Protocol):
    """What labels images: a `Labeler` of a network, an exported or a served model."""

    def labels(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W] for an image [H, W, C], of photographs uint8 [H, W, 3], RGB."""


@runtime_checkable
class GivesProbabilities(LabelsImages, Protocol):
    """What also tells how sure it is: a network is, and what runs one; a SavedModel and a server give labels only."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """float32 [H, W, K] for an image [H, W, C]."""

    def labels_and_confidence(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [H, W] and float32 [H, W] for an image [H, W, C]."""


class Uncertainty(NamedTuple):
    """How unsure a network is of every pixel.

    Attributes:
        labels: uint8 [H, W].
        margin: float32 [H, W]: 1 less the lead of the most probable class over the second, 0 (sure) to 1.
        entropy: float32 [H, W]: of the probabilities, over that of K equal ones, 0 (sure) to 1.
    """

    labels: np.ndarray
    margin: np.ndarray
    entropy: np.ndarray


class Labeler(abc.ABC):
    """Labels images by some protocol; subclasses say how their probabilities come about.

    Args:
        predict: maps normalized images, float32 [B, h, w, C], to logits [B, h, w, K].
        num_classes: K, at most 254.
        images: `ImageFormat` of what is labelled.

    Raises:
        ValueError: `num_classes` out of its range.
    """

    def __init__(
        self, predict: Callable[[tf.Tensor], tf.Tensor], num_classes: int, images: ImageFormat = PHOTOGRAPHS
    ) -> None:
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes must be 1 to {MAX_CLASSES}, got {num_classes}")
        self.predict = predict
        self.num_classes = num_classes
        self.images = images

    @abc.abstractmethod
    def bands(self, image: np.ndarray) -> Iterator[tuple[int, tf.Tensor]]:
        """Yields ``(first_row, probabilities)`` from top to bottom; probabilities are float32 tensors [rows, W, K]."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Probabilities of a whole image.

        Args:
            image: [H, W, C] of the dtype of `images`; of photographs uint8 [H, W, 3], RGB.

        Returns:
            float32 [H, W, K]; sums to 1 over K. For a large image with many classes prefer `bands`.

        Raises:
            ValueError: `image` is of another shape or dtype, or `predict` answers with another shape.
        """
        return self._collected(image, (np.float32, lambda probabilities: probabilities))[0]

    def labels(self, image: np.ndarray) -> np.ndarray:
        """The most probable class of every pixel, uint8 [H, W]; arguments and errors as of a call."""
        return self._collected(image, _LABELS)[0]

    def confidence(self, image: np.ndarray) -> np.ndarray:
        """The probability of the most probable class, float32 [H, W]; arguments and errors as of a call."""
        return self._collected(image, _CONFIDENCE)[0]

    def labels_and_confidence(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both of one pass; arguments and errors as of a call."""
        labels, confidence = self._collected(image, _LABELS, _CONFIDENCE)
        return labels, confidence

    def uncertainty(self, image: np.ndarray) -> Uncertainty:
        """How unsure the network is of every pixel; arguments and errors as of a call."""
        return Uncertainty(*self._collected(image, _LABELS, (np.float32, _margin), (np.float32, _entropy)))

    @abc.abstractmethod
    def pixel_logits(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> PixelLogits:
        """What the probabilities of some pixels are averages of.

        Args:
            image: as of a call.
            rows, columns: int [P], P at least 1: the pixels.

        Returns:
            `PixelLogits`, whose `probabilities` at temperature 1 are those of a call, at these pixels.
        """

    def _collected(self, image, *parts):
        """An array [H, W, ...] for each (dtype, function of the probabilities of a band)."""
        image = self.images.checked(image)
        results = [None] * len(parts)
        for first_row, probabilities in self.bands(image):
            for index, (dtype, function) in enumerate(parts):
                band = function(probabilities)
                if results[index] is None:
                    results[index] = np.empty((*image.shape[:2], *band.shape[2:]), dtype)
                results[index][first_row : first_row + band.shape[0]] = band
        return results

    def _predicted(self, images: tf.Tensor) -> tf.Tensor:
        """float32 logits, checked for their shape."""
        logits = tf.convert_to_tensor(self.predict(images))
        expected = (*images.shape[:3], self.num_classes)
        if tuple(logits.shape) != expected:
            raise ValueError(f"predict must give logits of shape {expected}, got {tuple(logits.shape)}")
        return tf.cast(logits, tf.float32)


def _margin(probabilities):
    if probabilities.shape[-1] == 1:
        return tf.zeros(probabilities.shape[:-1])
    first_two = tf.math.top_k(probabilities, 2).values
    return 1 - (first_two[..., 0] - first_two[..., 1])


def _entropy(probabilities):
    entropy = -tf.reduce_sum(tf.math.xlogy(probabilities, probabilities), -1)
    return entropy / math.log(max(2, probabilities.shape[-1]))


_LABELS = (np.uint8, lambda probabilities: tf.argmax(probabilities, -1, tf.int32))
_CONFIDENCE = (np.float32, lambda probabilities: tf.reduce_max(probabilities, -1))
