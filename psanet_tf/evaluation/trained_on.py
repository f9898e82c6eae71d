"""Whether a network was trained for the data that it is measured on."""

import os

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.fingerprint import describe_classes
from psanet_tf.inference.segmenter import Segmenter


def check_trained_on(
    segmenter: Segmenter, weights: str | os.PathLike, info: DatasetInfo, root: str | os.PathLike
) -> None:
    """Refuses data whose classes or images are not those of a network.

    Args:
        segmenter: `Segmenter`.
        weights: what the user called it.
        info: DatasetInfo of the data.
        root: of the data, for the message.

    Raises:
        ValueError: other classes, or images of other channels or dtype.
    """
    if different := describe_classes(segmenter.classes, info.class_names):
        raise ValueError(
            f"{weights} was trained with other classes than the dataset {info.name!r} has: {'; '.join(different)}"
        )
    if not segmenter.images.same_files(info.images):
        raise ValueError(
            f"{weights} was trained on images of {segmenter.images.in_words()}, those of {root} are of "
            f"{info.images.in_words()} (data.channels, data.dtype)"
        )
