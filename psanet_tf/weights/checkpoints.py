"""From whatever names trained weights to the network, with what is known about it."""

import dataclasses
import difflib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from psanet_tf.config import Config, EvaluateSection, load_config, override_evaluate
from psanet_tf.data.catalog import DatasetInfo, info_of, numbered_classes
from psanet_tf.data.fingerprint import describe_classes
from psanet_tf.data.image_format import image_format
from psanet_tf.data.scale import with_long_side
from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet, build_model
from psanet_tf.weights.calibration import stored_calibration
from psanet_tf.weights.description import Description, describe, description_of
from psanet_tf.weights.fetch import fetch_weights, is_remote
from psanet_tf.weights.garden_checkpoints import garden_checkpoint, load_garden_checkpoint
from psanet_tf.weights.public_files import load_public_file, load_published_network, refuse_backbone
from psanet_tf.weights.public_weights import load_public_weights
from psanet_tf.weights.registry import find_published, is_published_name
from psanet_tf.weights.run_folder import RunFolder

PUBLIC_SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and what is known about it.

    Attributes:
        model: PSANet; its description says the same as `info` and `evaluate`.
        config: Config, given or of the run; None if there is none.
        info: DatasetInfo, or None if nothing names the classes.
        evaluate: EvaluateSection by which it labels images, or None if nothing says so.
        path: the file that was read.
    """

    model: PSANet
    config: Config | None
    info: DatasetInfo | None
    evaluate: EvaluateSection | None
    path: Path


def load_trained(
    source: str | os.PathLike, config: Config | str | os.PathLike | None = None, overrides: Sequence[str] = ()
) -> Trained:
    """Reads a trained network.

    Args:
        source: a run folder (its best.keras is taken, or last.keras where nothing was validated); a `.keras` file
            (beside it, or one folder up, its run's config.yaml and dataset.json are looked for); a name of published
            weights or a URL, which are fetched; a ``.pth`` or ``.safetensors`` file of a public implementation; or a
            checkpoint of Model Garden's trainer or its folder (`garden_checkpoint`).
        config: Config, or the path of one; it takes precedence over the run's. What it says of prediction counts, but
            for weights with another protocol of their own, which it has to name: `evaluate.protocol`.
        overrides: strings ``"section.key=value"`` for the configuration; without one, keys of `evaluate` for the
            protocol that the weights bring along, or for the default one.

    Returns:
        Trained.

    Raises:
        FileNotFoundError: no such file, or a run folder without a checkpoint.
        OSError: it cannot be fetched.
        ValueError: not a checkpoint of a PSANet, cut short, or with another number of classes than its dataset; a
            configuration with other classes than the run's; overrides that do not fit.
    """
    if is_remote(source) and is_published_name(os.fspath(source)):
        refuse_backbone(find_published(os.fspath(source)))
    path = fetch_weights(os.fspath(source)) if is_remote(source) else checkpoint_file(source)
    run = next((run for run in map(RunFolder, path.parents[:2]) if run.config_file.is_file()), None)
    known = run and run.read_info()
    info, missing = None, None
    if config is not None:
        config = config if isinstance(config, Config) else load_config(config, overrides, needs_root=False)
        try:
            info = info_of(config.data)
        except FileNotFoundError as error:
            if known is None and path.suffix != ".keras":
                raise
            # The data, with the names of their classes, are elsewhere: the network's own file may know them.
            info, missing = known, error
        if known is not None:
            _check_classes(path, known, info, run)
            info = dataclasses.replace(info, long_side=known.long_side, images=_images(path, known, config.data))
    elif run is not None:
        config, info = load_config(run.config_file, overrides), known
        if known is not None:
            info = dataclasses.replace(known, images=_images(path, known, config.data))
    if config is not None and info is not None:
        info = with_long_side(info, config.data)
    model = _model(source, path, config, info)
    description = description_of(model)
    if info is not None and description is not None and run is None:
        _check_classes(path, description.info, info)
        long_side = description.info.long_side or info.long_side
        info = dataclasses.replace(info, long_side=long_side, images=_images(path, description.info, config.data))
    info = info or (description and description.info)
    if info is None and missing is not None:
        raise missing
    if info is not None and info.num_classes != model.num_classes:
        raise ValueError(
            f"{path} has {model.num_classes} classes, but the dataset {info.name!r} has {info.num_classes}"
        )
    evaluate = _evaluate(config, description and description.evaluate, overrides, source)
    calibration = (description and description.calibration) or stored_calibration(path)
    if info is not None:
        describe(model, Description(info, evaluate, description and description.source, calibration))
    elif calibration is not None:
        describe(model, Description(numbered_classes(model.num_classes), evaluate, None, calibration))
    return Trained(model, config, info, evaluate, path)


def _model(source, path, config, info):
    if is_remote(source) and is_published_name(os.fspath(source)):
        return load_published_network(find_published(os.fspath(source)), path)
    if path.suffix in PUBLIC_SUFFIXES:
        if config is None:
            return load_public_file(path, os.fspath(source))
        model = build_model(config, info.num_classes)
        load_public_weights(model, path)
        return model
    return load_garden_checkpoint(path) if path.suffix == ".index" else _load_model(path)


def _evaluate(config, own, overrides, source):
    """The protocol by which a network labels images: the configuration's, or its own."""
    if config is None:
        return override_evaluate(own, overrides, source) if overrides else own
    section = config.evaluate
    if own is not None and own.protocol != section.protocol and "protocol" not in section.model_fields_set:
        return override_evaluate(own, [text for text in overrides if text.startswith("evaluate.")], source)
    return section


def _check_classes(path, known, info, run=None):
    """Scores and images would be given under wrong names."""
    different = describe_classes(known.class_names, info.class_names)
    if different:
        raise ValueError(
            f"{path} was trained with other classes than the dataset {info.name!r} has now: {'; '.join(different)}; "
            f"give the data the classes {f'in {run.dataset_file}' if run else 'of the network'}, or train again"
        )


def _images(path, known, data):
    """The format of the network's images, shown as the configuration says.

    Raises:
        ValueError: the configuration says that they are read or normalized otherwise.
    """
    trained, given = known.images, image_format(data)
    if not given.same_files(trained):
        raise ValueError(
            f"{path} was trained on images of {trained.in_words()}, not of {given.in_words()}: set "
            f"data.channels={trained.channels} and data.dtype={trained.dtype}"
        )
    if data.mean is not None and (given.mean, given.std) != (trained.mean, trained.std):
        raise ValueError(
            f"{path} was trained with data.mean={list(trained.mean)} data.std={list(trained.std)}, which it needs for "
            f"good, not with data.mean={list(given.mean)} data.std={list(given.std)}: leave them out"
        )
    return trained.shown_as(given)


def checkpoint_file(path: str | os.PathLike) -> Path:
    """The file that a run folder or file of weights stands for.

    Args:
        path: a run folder, a file, or what `garden_checkpoint` takes.

    Returns:
        Path of best.keras, or last.keras where nothing was validated; the index file of a checkpoint of Model Garden;
        another file as it is.

    Raises:
        FileNotFoundError: there is no such folder or file, or the folder holds no checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        run = RunFolder(path)
        for file in (run.best_file, run.last_file):
            if file.is_file():
                return file
        if (index := garden_checkpoint(path)) is not None:
            return index
        raise FileNotFoundError(
            f"{path} holds neither {run.best_file.name} nor {run.last_file.name}: " + _what_else(path, run)
        )
    if not path.is_file():
        if (index := garden_checkpoint(path)) is not None:
            return index
        near = difflib.get_close_matches(path.name, os.listdir(path.parent) if path.parent.is_dir() else [], 1)
        hint = f"; near that name there is {path.parent / near[0]}" if near else ""
        raise FileNotFoundError(
            f"there is no run folder or checkpoint {path}{hint} (and no such name in psanet weights list)"
        )
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
