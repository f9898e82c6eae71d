"""From a run folder or a file of weights to the trained network, with what is known about it."""

import dataclasses
import difflib
import os
import zipfile
from pathlib import Path

from psanet_tf.config import Config, load_config
from psanet_tf.data.catalog import DatasetInfo, info_of
from psanet_tf.data.fingerprint import describe_classes
from psanet_tf.data.scale import with_long_side
from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet, build_model
from psanet_tf.weights.public_weights import load_public_weights
from psanet_tf.weights.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and what its run folder says about it.

    Attributes:
        model: PSANet.
        config: Config, or None if there is none.
        info: DatasetInfo, or None if neither the run folder nor a configuration names the classes.
        path: the file that was read.
    """

    model: PSANet
    config: Config | None
    info: DatasetInfo | None
    path: Path


def load_trained(path, config=None):
    """Reads a trained network.

    Args:
        path: a run folder (its best.keras is taken, or last.keras where nothing was validated), a `.keras`
            file (beside it, or one folder up, its run's config.yaml and dataset.json are looked for), or a
            ``.pth`` or ``.safetensors`` file of a public implementation.
        config: Config, or the path of one; it takes precedence over the run's, and a ``.pth`` or
            ``.safetensors`` file needs it.

    Returns:
        Trained.

    Raises:
        FileNotFoundError: no such file, or a run folder without a checkpoint.
        ValueError: not a checkpoint of a PSANet, cut short, or with another number of classes than its dataset;
            such a file without configuration; a configuration with other classes than the run's.
    """
    path = checkpoint_file(path)
    run = next((run for run in map(RunFolder, path.parents[:2]) if run.config_file.is_file()), None)
    known = run and run.read_info()
    if config is not None:
        config = config if isinstance(config, Config) else load_config(config)
        info = info_of(config.data)
        if known is not None:
            _check_classes(path, known, info, run)
            info = dataclasses.replace(info, long_side=known.long_side)
    else:
        config, info = run and run.read_config(), known
    if config is not None and info is not None:
        info = with_long_side(info, config.data)
    if path.suffix in (".pth", ".safetensors"):
        if config is None:
            raise ValueError(f"{path} does not say which network it belongs to: give its configuration")
        model = build_model(config, info.num_classes)
        load_public_weights(model, path)
    else:
        model = _load_model(path)
    if info is not None and info.num_classes != model.num_classes:
        raise ValueError(
            f"{path} has {model.num_classes} classes, but the dataset {info.name!r} has {info.num_classes}"
        )
    return Trained(model, config, info, path)


def _check_classes(path, known, info, run):
    """Scores and images would be given under wrong names."""
    different = describe_classes(known.class_names, info.class_names)
    if different:
        raise ValueError(
            f"{path} was trained with other classes than the dataset {info.name!r} has now: {'; '.join(different)}; "
            f"give the data the classes in {run.dataset_file}, or train again"
        )


def checkpoint_file(path):
    """The file that a run folder or file of weights stands for.

    Args:
        path: a run folder or a file.

    Returns:
        Path of best.keras, or last.keras where nothing was validated; a file as it is.

    Raises:
        FileNotFoundError: there is no such folder or file, or the folder holds no checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        run = RunFolder(path)
        for file in (run.best_file, run.last_file):
            if file.is_file():
                return file
        raise FileNotFoundError(
            f"{path} holds neither {run.best_file.name} nor {run.last_file.name}: " + _what_else(path, run)
        )
    if not path.is_file():
        near = difflib.get_close_matches(path.name, os.listdir(path.parent) if path.parent.is_dir() else [], 1)
        hint = f"; near that name there is {path.parent / near[0]}" if near else ""
        raise FileNotFoundError(f"there is no run folder or checkpoint {path}{hint}")
    return path


def _what_else(path, run):
    if run.config_file.is_file():
        return "its run has not come to the end of the first epoch"
    if (path / "saved_model.pb").is_file():
        return "it is an exported SavedModel, not a run folder of psanet train"
    runs = sorted(child for child in path.iterdir() if (child / run.config_file.name).is_file())
    return f"no run folder of psanet train{f', but one above {runs[0]}' if runs else ''}"


def _load_model(path):
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a .keras file, or is cut short")
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as a Keras model: {error}") from None
    if not isinstance(model, PSANet):
        raise ValueError(f"{path} holds a {type(model).__name__}, not a PSANet")
    return model
