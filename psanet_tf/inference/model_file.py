"""Labels images with a model file of another program, by the protocol that its metadata say."""

import dataclasses
import math
import os
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from psanet_tf.inference.attention import (
    AttentionMaps,
    checked_points,
    maps_at,
    placed,
    placed_pixels,
    placement_of_box,
)
from psanet_tf.inference.labeler import Labeler, Uncertainty
from psanet_tf.inference.mmseg_protocol import MMSegProtocol
from psanet_tf.inference.sliding_window import SlidingWindow
from psanet_tf.inference.whole_image import ScaledImage, WholeImage
from psanet_tf.runtimes.model_file import IMAGE_BOX, ModelFile, open_model_file

# A crop and its mirror image.
_BATCH_SIZE = 2


class ModelFileLabeler:
    """A file that `psanet export` wrote for another program.

    Args:
        path: ``.onnx``, ``.xml`` or ``.tflite``.

    Attributes:
        info: DatasetInfo of its classes.
        protocol, base_size: as of `Segmenter`.

    Raises:
        ValueError, ImportError: as of `ModelFile`.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._file = file = open_model_file(path)
        self.info = file.metadata.dataset_info()
        self.protocol, self.base_size = file.metadata.protocol, file.metadata.base_size
        self.labeler = model_file_labeler(file)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Probabilities; arguments, results and errors of all of these as of `Labeler`."""
        return self.labeler(image)

    def labels(self, image: np.ndarray) -> np.ndarray:
        return self.labeler.labels(image)

    def confidence(self, image: np.ndarray) -> np.ndarray:
        return self.labeler.confidence(image)

    def labels_and_confidence(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.labeler.labels_and_confidence(image)

    def uncertainty(self, image: np.ndarray) -> Uncertainty:
        return self.labeler.uncertainty(image)

    def attention(self, image: np.ndarray, points: Iterable[tuple[float, float]]) -> AttentionMaps:
        """Attention maps at points of an image; arguments, result and errors as of `attention_maps`.

        Where an image is reduced or padded for it, its pixels are rounded to the file's input, as for labels.

        Raises:
            ValueError: also if the network was exported without attention.
        """
        metadata = self._file.metadata
        if not metadata.directions:
            raise ValueError(
                f"{self._file.path} has no attention to show: the network was exported without, or by a version of "
                "psanet_tf that left it out; export it again"
            )
        image = metadata.images.checked(image)
        points = checked_points(points, image.shape[:2])
        place = placed(image.shape[:2], metadata.input_size or (None, None))
        pixels = metadata.images.denormalized(placed_pixels(image, place, metadata.images).numpy())
        answer = self._file.run(pixels[None], (*metadata.directions, IMAGE_BOX))
        matrices = {name: answer[name][0] for name in metadata.directions}
        map_size = matrices[metadata.directions[0]].shape[:2]
        # The file's box is that of all that it was given.
        size = place[2]
        whole = placement_of_box(size, size, (0, 0), size, map_size, answer[IMAGE_BOX][0])
        placement = dataclasses.replace(whole, image_size=image.shape[:2], resized_size=place[0], offset=place[1])
        positions = math.prod(map_size)
        return maps_at(
            points, {name: matrix.reshape(positions, positions) for name, matrix in matrices.items()}, placement
        )


def model_file_labeler(file: ModelFile) -> Labeler:
    """The labeler of a model file: the same protocol as in the network's own `build_labeler`.

    The file takes stored values. Where these are integers, what was resized is rounded to them: next to edges a few
    labels in ten thousand differ from those of the network itself.
    """
    metadata = file.metadata
    predict, count, images = _log_probabilities(file), metadata.num_classes, metadata.images
    if metadata.protocol is None:
        # Padding is done in the file.
        return WholeImage(predict, count, padded=False, images=images)
    if metadata.protocol == "mmseg":
        return MMSegProtocol(
            predict,
            count,
            metadata.scale,
            metadata.align_corners,
            metadata.crop_size,
            metadata.stride,
            metadata.scales,
            metadata.flip,
            _BATCH_SIZE,
            images,
        )
    if metadata.mode == "whole":
        return ScaledImage(predict, count, metadata.base_size, metadata.scales, metadata.flip, images)
    return SlidingWindow(
        predict,
        count,
        metadata.crop_size,
        metadata.base_size,
        metadata.scales,
        metadata.flip,
        metadata.stride_rate,
        _BATCH_SIZE,
        images,
    )


def _log_probabilities(file):
    """Normalized images -> logarithms of probabilities.

    These differ from the logits by one number per pixel, the same for all classes; no softmax knows it, nor does one of
    logits that are averaged or resized.
    """
    images, least = file.metadata.images, np.finfo(np.float32).tiny

    def predict(normalized: tf.Tensor) -> tf.Tensor:
        probabilities = file.predict(images.denormalized(np.asarray(normalized)))
        return tf.convert_to_tensor(np.log(np.maximum(probabilities, least)))

    return predict
