"""What all ways of labelling images have in common: probabilities that come in bands, and what is made of them."""

import abc
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat

MAX_CLASSES = 254  # label images hold one byte per pixel, and 255 marks ignored ones


class LabelsImages(Protocol):
    """What labels images: a `Labeler` of a network, an exported or a served model."""

    def labels(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W] for an image [H, W, C], of photographs uint8 [H, W, 3], RGB."""


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
        return self._collected(image, (self.num_classes,), np.float32, lambda probabilities: probabilities)

    def labels(self, image: np.ndarray) -> np.ndarray:
        """The most probable class of every pixel, uint8 [H, W]; arguments and errors as of a call."""
        return self._collected(image, (), np.uint8, lambda probabilities: tf.argmax(probabilities, -1, tf.int32))

    def confidence(self, image: np.ndarray) -> np.ndarray:
        """The probability of the most probable class, float32 [H, W]; arguments and errors as of a call."""
        return self._collected(image, (), np.float32, lambda probabilities: tf.reduce_max(probabilities, -1))

    def _collected(self, image, depth, dtype, function):
        image = self.images.checked(image)
        result = np.empty((*image.shape[:2], *depth), dtype)
        for first_row, probabilities in self.bands(image):
            result[first_row : first_row + probabilities.shape[0]] = function(probabilities)
        return result

    def _predicted(self, images: tf.Tensor) -> tf.Tensor:
        """float32 logits, checked for their shape."""
        logits = tf.convert_to_tensor(self.predict(images))
        expected = (*images.shape[:3], self.num_classes)
        if tuple(logits.shape) != expected:
            raise ValueError(f"predict must give logits of shape {expected}, got {tuple(logits.shape)}")
        return tf.cast(logits, tf.float32)
