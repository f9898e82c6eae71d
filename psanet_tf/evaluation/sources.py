"""One way in for all that can label a picture: trained weights and exported models."""

from pathlib import Path

from psanet_tf.config import load_config
from psanet_tf.data.catalog import DatasetInfo, distinct_colors, info_of
from psanet_tf.evaluation.labelers import load_labelers
from psanet_tf.evaluation.run import config_beside
from psanet_tf.evaluation.saved_model import SavedModelLabeler, saved_model_folder
from psanet_tf.training.checkpoints import checkpoint_file


def open_labelers(weights, config_path=None, overrides=(), whole=False):
    """Opens weights or a SavedModel for labelling pictures.

    Args:
        weights: run folder, ``.keras`` or ``.pth`` file, or folder of a SavedModel that `psanet export` wrote (or of
            its versions).
        config_path: configuration file; default: the one of the run folder that the weights lie in, if they do.
        overrides: strings ``"section.key=value"``.
        whole: one pass per picture instead of the sliding window.

    Returns:
        (labelers, info): objects with ``labels(image)``, one per device, and the DatasetInfo of their classes; classes
        without known names are called "class 0", "class 1", ...

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
        return (labeler,), labeler.info
    checkpoint_file(weights)
    config_path = config_path or config_beside(weights)
    if config_path is None and overrides:
        raise ValueError(f"{weights} lies in no run folder: overrides need a configuration to apply to")
    config = load_config(config_path, overrides) if config_path else None
    network = load_labelers(weights, config_path, config and config.evaluate, whole)
    info = network.info or (info_of(config.data) if config else None)
    return network.labelers, info or _unnamed(network.model.num_classes)


def _unnamed(count):
    return DatasetInfo("unnamed", tuple(f"class {index}" for index in range(count)), distinct_colors(count))
