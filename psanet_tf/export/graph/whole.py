"""Images in one piece, as a graph: resized to the paper's scales, or at their own size."""

from collections.abc import Sequence

import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.export.graph.labeler import GraphLabeler, Network, probabilities, resized_rows, scaled_size
from psanet_tf.feature_sizes import OUTPUT_STRIDE


class GraphWhole(GraphLabeler):
    """One pass per scale; at the image's own size the arithmetic of `psanet_tf.WholeImage`.

    Args:
        network, num_classes, images: see `GraphLabeler`; the network takes any size.
        padded: images are padded with the mean colour up to 8n+1 rows and columns.
        base_size: long side, in pixels, at scale 1; None: images are taken as they are, at scale 1 alone.
        scales: factors of `base_size`, over which probabilities are averaged.
        flip: average with the mirror image.
    """

    def __init__(
        self,
        network: Network,
        num_classes: int,
        padded: bool,
        base_size: int | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        images: ImageFormat = PHOTOGRAPHS,
    ) -> None:
        super().__init__(network, num_classes, images)
        if base_size is None and tuple(scales) != (1.0,):
            raise ValueError(f"images at their own size have scale 1 alone, got scales {tuple(scales)}")
        self._padded = padded
        self._base_size = base_size
        self._scales = tuple(scales)
        self._flip = flip

    def _maps(self, image):
        return [self._scaled_probabilities(image, scale) for scale in self._scales]

    def _rows(self, part, first, rows, size):
        return resized_rows(part, first, rows, size)

    def _scaled_probabilities(self, image, scale):
        """float32 [h, w, K] of the image resized for one scale."""
        if self._base_size is not None:
            image = tf.image.resize(image, scaled_size(image, self._base_size, scale))
        inputs = self._images.normalize(image)[None]
        padded = pad_to_stride(inputs) if self._padded else inputs
        return probabilities(self._network, padded, self._flip)[: tf.shape(image)[0], : tf.shape(image)[1]]


def pad_to_stride(images: tf.Tensor) -> tf.Tensor:
    """[N, H, W, C] with rows and columns of zeros added at the end, up to sizes of the form 8n + 1, at least 9."""
    paddings = []
    for axis in (1, 2):
        length = tf.shape(images)[axis]
        target = tf.maximum(1, -(-(length - 1) // OUTPUT_STRIDE)) * OUTPUT_STRIDE + 1
        paddings.append([0, target - length])
    return tf.pad(images, [[0, 0], *paddings, [0, 0]])
