"""From a network and a section of a configuration to what labels images: one protocol, on one device."""

import numpy as np
import tensorflow as tf

from psanet_tf.config import EvaluateSection
from psanet_tf.data.image_format import ImageFormat
from psanet_tf.inference.labeler import Labeler, Uncertainty
from psanet_tf.inference.mmseg_protocol import MMSegProtocol
from psanet_tf.inference.pixel_logits import PixelLogits
from psanet_tf.inference.sliding_window import SlidingWindow
from psanet_tf.inference.whole_image import WholeImage, any_size
from psanet_tf.models import PSANet
from psanet_tf.weights.calibration import tempered
from psanet_tf.weights.description import images_of, temperature_of


def build_labeler(model: PSANet, evaluate: EvaluateSection | None, images: ImageFormat | None = None) -> Labeler:
    """The labeler of a network, whose logits are divided by the temperature that its description names.

    Args:
        model: `PSANet`.
        evaluate: `EvaluateSection`, with a `base_size` where its protocol is "semseg"; None: one pass at the image's
            own size.
        images: `ImageFormat` of what is labelled; default: what the model's description says, else photographs.

    Raises:
        ValueError: nothing says how the network's images are normalized; a network of any size with a protocol that
            needs its crop, or one of a single size with one that shows it other sizes.
    """
    images = images_of(model) if images is None else images
    if evaluate is None:
        model = any_size(model)
        predict = _inference(model, (None, None))
        return WholeImage(predict, model.num_classes, padded=model.variant == "semseg", images=images)
    if evaluate.protocol == "mmseg":
        model = any_size(model)
        return MMSegProtocol(
            _inference(model, (None, None)),
            model.num_classes,
            evaluate.scale,
            model.get_config()["align_corners"],
            evaluate.crop_size,
            evaluate.stride,
            evaluate.scales,
            evaluate.flip,
            evaluate.batch_size,
            images,
        )
    crop_size = tuple(model.input_shape[1:3])
    if None in crop_size:
        raise ValueError(
            f"{model.name!r} takes any size, so a sliding window cannot tell its crop; label images whole, or by "
            "evaluate.protocol=mmseg"
        )
    return SlidingWindow(
        _inference(model, crop_size),
        model.num_classes,
        crop_size,
        base_size=evaluate.base_size,
        scales=evaluate.scales,
        flip=evaluate.flip,
        stride_rate=evaluate.stride_rate,
        batch_size=evaluate.batch_size,
        images=images,
    )


class OnDevice:
    """Runs a labeler's work on one device, whatever thread calls it."""

    def __init__(self, labeler: Labeler, device: str) -> None:
        self.labeler = labeler
        self.device = device

    def __call__(self, image: np.ndarray) -> np.ndarray:
        with tf.device(self.device):
            return self.labeler(image)

    def labels(self, image: np.ndarray) -> np.ndarray:
        with tf.device(self.device):
            return self.labeler.labels(image)

    def confidence(self, image: np.ndarray) -> np.ndarray:
        with tf.device(self.device):
            return self.labeler.confidence(image)

    def labels_and_confidence(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with tf.device(self.device):
            return self.labeler.labels_and_confidence(image)

    def uncertainty(self, image: np.ndarray) -> Uncertainty:
        with tf.device(self.device):
            return self.labeler.uncertainty(image)

    def pixel_logits(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> PixelLogits:
        with tf.device(self.device):
            return self.labeler.pixel_logits(image, rows, columns)


def _inference(model, size):
    inference, temperature = model.inference(), temperature_of(model)
    return tf.function(
        lambda images: tempered(inference(images, training=False), temperature),
        input_signature=[tf.TensorSpec([None, *size, model.input_shape[-1]], tf.float32)],
    )
