"""Where a run's weights come from, other than from random numbers."""

import os
from pathlib import Path

import numpy as np

from psanet_tf.config import Config
from psanet_tf.data.findings import counted
from psanet_tf.models import PSANet
from psanet_tf.models.resnet import BLOCKS
from psanet_tf.weights.backbones import read_keras_applications
from psanet_tf.weights.checkpoints import load_trained
from psanet_tf.weights.fetch import fetch_weights, is_remote
from psanet_tf.weights.files import kind_of_weights
from psanet_tf.weights.first_convolution import FIRST_CONVOLUTIONS, folded_kernel
from psanet_tf.weights.garden_checkpoints import garden_checkpoint
from psanet_tf.weights.layer_weights import load_backbone_weights, load_layer_weights
from psanet_tf.weights.naming import naming_of
from psanet_tf.weights.public_weights import PARTS, WeightsMismatchError, load_public_weights, public_state_dict
from psanet_tf.weights.registry import backbone_for, find_published, is_published_name
from psanet_tf.weights.state_dicts import from_torch_layout, read_state_dict, to_torch_layout

_WANTED = (
    "wanted is imagenet, a name of psanet weights list, a URL, a run folder or .keras file of psanet train, a "
    "checkpoint of Model Garden, a .pth or .safetensors of semseg, MMSegmentation or a torchvision ResNet, or an .h5 "
    "of a keras.applications ResNet"
)


def load_configured_weights(model: PSANet, config: Config) -> list[str]:
    """Sets the weights with which a configuration begins: ``model.backbone_weights``, and then ``train.init``.

    Returns:
        Lines of text: what was taken, and what was not and why.

    Raises:
        as `load_backbone_weights` and `load_initial_weights`.
    """
    lines, how = [], config.model.first_convolution
    if config.model.backbone_weights is not None:
        lines += load_backbone_weights(model, config.model.backbone_weights, how)
    if config.train.init is not None:
        lines += load_initial_weights(model, config.train.init, how)
    return lines


def load_initial_weights(model: PSANet, source: str | os.PathLike, first_convolution: str = "repeat") -> list[str]:
    """Sets as many weights as a file has for this network; the whole backbone at least.

    Args:
        model: PSANet.
        source: "imagenet" for a published backbone that fits; a name of published weights or a URL, which are fetched;
            run folder or `.keras` file of an earlier run; a checkpoint of Model Garden; ``.pth`` or ``.safetensors`` of
            the original implementation, whole network or backbone, or of a torchvision ResNet; ``.h5`` of a
            keras.applications ResNet.
        first_convolution: what becomes of weights for another number of channels than the model's images have:
            "repeat" or "mean", see `folded_kernel`, or "new", which keeps the model's own.

    Returns:
        Lines of text: what was taken, and what was not and why.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be fetched.
        ValueError: no such weights, values that are not finite, or a backbone of another shape; nothing has been
            changed then.
    """
    if model.has_backbone:
        return _load_layers(model, source, first_convolution)
    if source == "imagenet":
        source = _imagenet_backbone(model)
    hints = []
    if is_remote(source) and is_published_name(source):
        hints = _settings_of_published(find_published(source), model)
    path = fetch_weights(source) if is_remote(source) else Path(source)
    state = naming_of(model).with_backbone_names(_read(path, model))
    state, lines = _with_first_convolution(state, model, first_convolution)
    hints = lines + hints
    try:
        result = load_public_weights(model, state, skip_mismatch=[part for part in PARTS if part != "backbone"])
    except WeightsMismatchError as error:
        message = f"train.init: {source} does not fit this network (model.depth or blocks, width, stem?):"
        raise WeightsMismatchError(message, error.problems) from None
    naming, skipped = naming_of(model), {}
    classifiers = (naming.heads["head_classifier"], naming.heads["aux_classifier"])
    for name, reason in result.skipped.items():
        part = PARTS[naming.part_of(name)]
        if name not in state:
            skipped.setdefault(part, "not in the file")
        elif name.startswith(classifiers):
            skipped[f"classifier of the {part}"] = f"{len(state[name])} classes there, {model.num_classes} here"
        else:
            skipped[name] = reason
    number = len(result.loaded) + len(result.skipped)
    lines = [f"initial weights from {source}: {len(result.loaded)} of {number} tensors taken"]
    lines += [f"skipped {what}: {why}; it starts from random weights" for what, why in skipped.items()]
    return lines + hints


def _load_layers(model, source, first_convolution):
    """For a network with a backbone, whose weights only files of this package hold."""
    path = Path(source)
    if source == "imagenet" or is_remote(source) or not (path.is_dir() or path.suffix == ".keras"):
        raise ValueError(
            f"train.init: with model.backbone it takes a run folder or .keras file of psanet train, got {source}; "
            "model.backbone_weights takes imagenet, and .h5 files of the backbone"
        )
    return load_layer_weights(model, load_trained(path).model, f"train.init: {source}", first_convolution)


def _with_first_convolution(state, model, how):
    """(state, lines of text) with a first convolution for as many channels as the model's images have."""
    if how not in FIRST_CONVOLUTIONS:
        raise ValueError(f"first_convolution must be one of {', '.join(FIRST_CONVOLUTIONS)}, got {how!r}")
    name, channels = f"{naming_of(model).stem}0.weight", model.input_shape[-1]
    kernel = state.get(name)
    if np.ndim(kernel) != 4 or kernel.shape[1] == channels:
        return state, []
    said = f"first convolution: {counted(kernel.shape[1], 'channel')} there, {counted(channels, 'channel')} here;"
    if how == "new":
        return state | {name: public_state_dict(model)[name]}, [f"{said} it starts from random weights"]
    folded = folded_kernel(from_torch_layout(kernel), channels, how)
    return state | {name: to_torch_layout(folded)}, [f"{said} its weights are folded (model.first_convolution: {how})"]


def _settings_of_published(entry, model):
    """Lines about settings under which published weights mean something else; ValueError where they mean nothing."""
    if entry.is_backbone:
        return []
    arguments = model.get_config()
    wanted = {"depth": entry.depth, "stem": entry.stem, **entry.model}
    different = [
        f"model.{key}={_as_yaml(wanted[key])}"
        for key in ("variant", "depth", "stem", "mask_size", "align_corners")
        if key in wanted and arguments[key] != wanted[key]
    ]
    if not different:
        return []
    settings = " ".join(f"--set {setting}" for setting in different)
    if any(setting.startswith(("model.variant", "model.depth", "model.stem")) for setting in different):
        raise ValueError(f"train.init: {entry.name} are weights of another network; for theirs: {settings}")
    return [f"{entry.name} were trained with other settings; theirs: {settings}"]


def _as_yaml(value):
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else str(value).lower()


def _imagenet_backbone(model):
    arguments = model.get_config()
    if arguments["blocks"] is not None or arguments["width"] != 64:
        raise ValueError("train.init: imagenet needs a network of model.depth 50, 101 or 152 and model.width 64")
    try:
        return backbone_for(arguments["depth"], arguments["stem"], arguments["stride_in_1x1"]).name
    except ValueError as error:
        raise ValueError(f"train.init: imagenet: {error}") from None


def _read(path, model):
    if path.is_dir() or path.suffix == ".keras" or garden_checkpoint(path) is not None:
        try:
            return public_state_dict(load_trained(path).model)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"train.init: {error}; {_WANTED}") from None
    if not path.is_file():
        raise FileNotFoundError(f"train.init: there is no file or run folder {path}; {_WANTED}")
    kind = kind_of_weights(path)
    if kind == "HDF5":
        arguments = model.get_config()
        if arguments["stem"] != "classic" or not arguments["stride_in_1x1"]:
            raise ValueError(
                f"train.init: weights of keras.applications ({path}) need model.stem: classic and "
                "model.stride_in_1x1: true"
            )
        return read_keras_applications(path, arguments["blocks"] or BLOCKS[arguments["depth"]])
    if kind not in ("PyTorch", "safetensors"):
        raise ValueError(f"train.init: {path} holds no weights but {kind}; {_WANTED}")
    return read_state_dict(path)
