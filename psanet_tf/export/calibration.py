"""Images that tell in which ranges a network computes, before it computes in integers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from psanet_tf.config import Config
from psanet_tf.data.layouts import Example
from psanet_tf.data.pixels import decode_image
from psanet_tf.data.readers import list_examples, read_image
from psanet_tf.data.records import RecordExample
from psanet_tf.inference.mmseg_protocol import fitted
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.inference.sliding_window import scaled_size

IMAGES = 32


def calibration_images(
    segmenter: Segmenter,
    input_size: tuple[int, int] | None,
    config: Config | None = None,
    files: Sequence[Path] = (),
) -> list[np.ndarray]:
    """What a network sees of at most 32 images, evenly spread over those that there are.

    Each is resized as for labelling at scale 1. A network of one size sees the middle of that, padded with the mean
    colour where the image is smaller.

    Args:
        segmenter: `Segmenter` of the network.
        input_size: (rows, columns) of the network's input; None if it takes any.
        config: of the run, whose training images are taken; None if there is none.
        files: image files that are taken instead.

    Returns:
        list of [H, W, C], of the images' dtype.

    Raises:
        ValueError, OSError: there are none; the message says how to give some.
    """
    sources = list(files) or _training_images(config)
    count = min(len(sources), IMAGES)
    chosen = [sources[index * len(sources) // count] for index in range(count)]
    return [_seen(_read(source, segmenter.images), segmenter, input_size) for source in chosen]


def _training_images(config):
    advice = "--calibration FOLDER names images such as those of the training"
    if config is None:
        raise ValueError(f"precision int8 needs images, and nothing says which the network was trained on: {advice}")
    try:
        return list_examples(config.data, config.data.train_split)
    except (ValueError, OSError) as error:
        raise ValueError(f"precision int8 needs the training images ({error}), or others: {advice}") from None


def _read(source, images):
    if isinstance(source, RecordExample):
        return decode_image(source.encoded()[0], source.where, images)
    return read_image(source.image_path if isinstance(source, Example) else source, images)


def _seen(image, segmenter, input_size):
    if segmenter.protocol == "mmseg":
        resized = fitted(image, segmenter.evaluate.scale)
    else:
        resized = tf.image.resize(image, scaled_size(image.shape[:2], segmenter.base_size, 1.0))
    resized = resized.numpy() if input_size is None else _middle(resized.numpy(), input_size, segmenter.images.fill)
    if segmenter.images.dtype == "float32":
        return resized
    limits = np.iinfo(segmenter.images.dtype)
    return np.clip(np.rint(resized), limits.min, limits.max).astype(segmenter.images.dtype)


def _middle(image, size, fill):
    """The part of `size` in the middle; beyond the image it has the values `fill` [C]."""
    crop = np.broadcast_to(fill, (*size, len(fill))).copy()
    target, source = [], []
    for length, wanted in zip(image.shape[:2], size, strict=True):
        common = min(length, wanted)
        target.append(slice((wanted - common) // 2, (wanted - common) // 2 + common))
        source.append(slice((length - common) // 2, (length - common) // 2 + common))
    crop[tuple(target)] = image[tuple(source)]
    return crop
