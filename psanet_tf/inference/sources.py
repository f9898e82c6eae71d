"""One way in for all that can label an image: trained weights and exported models."""

import dataclasses
from pathlib import Path

from psanet_tf.config import load_config
from psanet_tf.data.catalog import DatasetInfo, distinct_colors
from psanet_tf.inference.labelers import load_labelers
from psanet_tf.inference.saved_model import SavedModelLabeler, saved_model_folder
from psanet_tf.weights.checkpoints import checkpoint_file
from psanet_tf.weights.run_folder import config_beside


@dataclasses.dataclass(frozen=True)
class Source:
    """Something that labels images.

    Attributes:
        labelers: objects with ``labels(uint8 [H, W, 3]) -> uint8 [H, W]``, one per device.
        info: DatasetInfo; classes without known names are called "class 0", "class 1", ...
        base_size: long side, in pixels, to which images are resized at scale 1; None if they are taken as they are.
    """

    labelers: tuple
    info: DatasetInfo
    base_size: int | None


def open_labelers(weights, config_path=None, overrides=(), whole=False):
    """Opens weights or a SavedModel for labelling images.

    Args:
        weights: run folder, ``.keras`` or ``.pth`` file, or folder of a SavedModel that `psanet export` wrote (or of
            its versions).
        config_path: configuration file; default: the one of the run folder that the weights lie in, if they do, with
            the classes and the scale that they were trained with.
        overrides: strings ``"section.key=value"``.
        whole: one pass per image instead of the sliding window.

    Returns:
        Source.

    Raises:
        ValueError, OSError: weights or configuration that cannot be used; options that a SavedModel does not take.
    """
    weights = Path(weights)
    if folder := saved_model_folder(weights):
        if config_path or overrides or whole:
            raise ValueError(
                f"{weights} is a SavedModel: its sizes and scales were fixed when it was exported, "
                "so it takes neither a configuration nor overrides nor --whole"
            )
        labeler = SavedModelLabeler(folder)
        return Source((labeler,), labeler.info, labeler.base_size)
    checkpoint_file(weights)
    beside = config_path or config_beside(weights)
    if beside is None and overrides:
        raise ValueError(f"{weights} lies in no run folder: overrides need a configuration to apply to")
    config = load_config(beside, overrides) if beside else None
    # Its own run knows a network's classes better than the data, which may not even be there any more.
    network = load_labelers(weights, config if config_path else None, config and config.evaluate, whole)
    info = network.info or _unnamed(network.model.num_classes)
    return Source(network.labelers, info, network.evaluate and network.evaluate.base_size)


def _unnamed(count):
    return DatasetInfo("unnamed", tuple(f"class {index}" for index in range(count)), distinct_colors(count))
