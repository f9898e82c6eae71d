"""Loads trained networks: run folders, `.keras` files, and checkpoints of the original implementation."""

import dataclasses
import json
import zipfile
from pathlib import Path

from psanet_tf.config import Config, load_config
from psanet_tf.data.catalog import DatasetInfo, info_of
from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet, load_semseg_weights
from psanet_tf.models.from_config import build_model

CONFIG_FILE = "config.yaml"
DATASET_FILE = "dataset.json"
BEST_FILE = "best.keras"
LAST_FILE = "last.keras"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network with its weights, and what is known of its training.

    Attributes:
        model: `PSANet`.
        config: Config it was trained or built with, or None.
        info: DatasetInfo of its classes, or None.
    """

    model: PSANet
    config: Config | None
    info: DatasetInfo | None


def load_trained(path, config_path=None):
    """Loads a network with its weights.

    Args:
        path: run folder (its ``best.keras``, or ``last.keras`` where there is no best one yet), ``.keras`` file, or
            ``.pth`` file of the original implementation.
        config_path: configuration file; needed for ``.pth``. For the others it takes the place of the
            ``config.yaml`` beside the weights.

    Returns:
        Trained. Configuration and classes of a ``.keras`` file are those of the run folder that it lies in, if it
        does.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: the file cannot be read, is not a `PSANet`, or does not fit the configuration.
    """
    path = Path(path)
    if path.suffix == ".pth":
        if config_path is None:
            raise ValueError(f"{path} holds weights only: give the configuration of its network too")
        config = load_config(config_path)
        info = info_of(config.data)
        model = build_model(config, info.num_classes)
        load_semseg_weights(model, path)
        return Trained(model, config, info)
    file = _weights_file(path)
    config_path = config_path or _if_there(file.parent / CONFIG_FILE)
    config = load_config(config_path) if config_path else None
    if dataset_file := _if_there(file.parent / DATASET_FILE):
        info = DatasetInfo.from_dict(json.loads(dataset_file.read_text(encoding="utf-8")))
    else:
        info = info_of(config.data) if config else None
    model = _load_keras_file(file)
    if info is not None and info.num_classes != model.num_classes:
        raise ValueError(f"{file} has {model.num_classes} classes, but dataset {info.name!r} has {info.num_classes}")
    return Trained(model, config, info)


def _weights_file(path):
    if not path.is_dir():
        if path.is_file() and path.suffix != ".keras":
            raise ValueError(f"weights must be a run folder, a .keras or a .pth file, got {path}")
        if not path.is_file():
            raise FileNotFoundError(f"there are no weights at {path}")
        return path
    for name in (BEST_FILE, LAST_FILE):
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path} is no run folder: it holds neither {BEST_FILE} nor {LAST_FILE}")


def _load_keras_file(file):
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is not a .keras file, or is cut short")
    try:
        model = keras.saving.load_model(file, compile=False)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be loaded: {error}") from error
    if not isinstance(model, PSANet):
        raise ValueError(f"{file} must hold a PSANet, it holds a {type(model).__name__}")
    return model


def _if_there(file):
    return file if file.is_file() else None
