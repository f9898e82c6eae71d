"""Weights for networks with a backbone of their own, which no public implementation has names for."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from psanet_tf.data.findings import counted
from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet
from psanet_tf.models.backbones import as_model, build_backbone
from psanet_tf.weights.checkpoints import load_trained
from psanet_tf.weights.first_convolution import FIRST_CONVOLUTIONS, folded_kernel


def load_backbone_weights(model: PSANet, source: str | os.PathLike, first_convolution: str = "repeat") -> list[str]:
    """Sets the weights of a network's backbone, all of them.

    Args:
        model: PSANet with a backbone.
        source: "imagenet" for what keras.applications fetches; a ``.weights.h5`` or ``.h5`` file of the backbone, with
            or without its classifier; a ``.keras`` file of the backbone or of a PSANet with it; or a run folder.
        first_convolution: what becomes of a first convolution for another number of channels than the model's images
            have: "repeat" or "mean", see `folded_kernel`, or "new", which keeps the model's own.

    Returns:
        Lines of text: what was taken, and what became of the first convolution.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: ImageNet's weights cannot be fetched.
        ValueError: weights of another network, or values that are not finite; nothing has been changed then.
    """
    config = model.get_config()
    if config["backbone"] is None:
        raise ValueError("model.backbone_weights is for networks with a backbone; train.init is for the ResNet without")
    if first_convolution not in FIRST_CONVOLUTIONS:
        raise ValueError(f"first_convolution must be one of {', '.join(FIRST_CONVOLUTIONS)}, got {first_convolution!r}")
    fetched = source == "imagenet"
    values = _values_of(_imagenet(config["backbone"]), config) if fetched else _read(Path(source), config)
    return _set_backbone(model, values, f"model.backbone_weights: {source}", first_convolution)


def load_layer_weights(model: PSANet, source: PSANet, name: str, first_convolution: str = "repeat") -> list[str]:
    """Sets as many weights as another network has for this one; the whole backbone at least.

    Args:
        model: PSANet with a backbone.
        source: another one.
        name: what messages call that.
        first_convolution: see `load_backbone_weights`.

    Returns:
        Lines of text: what was taken and what not.

    Raises:
        ValueError: a backbone of another shape, or values that are not finite; nothing has been changed then.
    """
    if not source.has_backbone:
        raise ValueError(f"{name} holds the weights of a ResNet without model.backbone, not of such a backbone")
    there = {layer.name: layer for layer in source.layers}
    taken, skipped = [], []
    for layer in model.layers:
        if layer.name == "backbone" or not layer.weights:
            continue
        other = there.get(layer.name)
        if other is not None and [tuple(w.shape) for w in other.weights] == [tuple(w.shape) for w in layer.weights]:
            values = other.get_weights()
            if not all(np.isfinite(value).all() for value in values):
                raise ValueError(f"{name} does not fit: {layer.name}: values that are NaN or infinite")
            taken.append((layer, values))
        else:
            why = "not in the file" if other is None else "of another shape there"
            skipped.append(f"skipped {layer.name}: {why}; it starts from random weights")
    values = [np.asarray(weight) for weight in source.get_layer("backbone").weights]
    lines = _set_backbone(model, values, name, first_convolution)
    for layer, values in taken:
        layer.set_weights(values)
    return lines + skipped


def _set_backbone(model, values, name, how):
    weights = model.get_layer("backbone").weights
    problems, lines, wanted = [], [], []
    if len(values) != len(weights):
        problems = [f"{len(values)} weights there, {len(weights)} here"]
    for index, (weight, value) in enumerate(zip(weights, values, strict=False)):
        shape = tuple(weight.shape)
        if index == 0 and value.ndim == 4 and value.shape[2] != shape[2] and _but_for_inputs(value.shape, shape):
            there = f"first convolution: {counted(value.shape[2], 'channel')} there, {shape[2]} here"
            if how == "new":
                value = np.asarray(weight)
                lines = [f"{there}; it starts from random weights"]
            else:
                value = folded_kernel(value, shape[2], how)
                lines = [f"{there}; its weights are folded (model.first_convolution: {how})"]
        if value.shape != shape:
            problems.append(f"{weight.path}: shape {list(value.shape)} there, {list(shape)} here")
        elif not np.isfinite(value).all():
            problems.append(f"{weight.path}: values that are NaN or infinite")
        wanted.append(value)
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"{name} does not fit the backbone: {'; '.join(problems[:5])}{more}")
    for weight, value in zip(weights, wanted, strict=True):
        weight.assign(value)
    return [f"backbone from {name.rpartition(': ')[2]}: {len(wanted)} tensors taken", *lines]


def _but_for_inputs(shape: Sequence[int], other: Sequence[int]) -> bool:
    return (shape[:2], shape[3]) == (other[:2], other[3])


def _values_of(backbone, config):
    """Values of the weights of a backbone, in the order in which a network with that backbone has them."""
    built = build_backbone(
        backbone,
        (*config["input_shape"][:2], backbone.inputs[0].shape[-1]),
        config["output_stride"],
        config["feature_layers"],
        config["aux_head"],
        synchronized=False,
        dtype="float32",
    )
    return [np.asarray(weight) for weight in built.model.weights]


def _imagenet(backbone):
    if not isinstance(backbone, str):
        raise ValueError(
            "model.backbone_weights: imagenet is for backbones that go by a name of keras.applications; give a file"
        )
    try:
        return as_model(backbone, 3, "float32", weights="imagenet")
    except Exception as error:  # Keras raises plain exceptions where it cannot fetch
        raise OSError(
            f"model.backbone_weights: imagenet: keras.applications cannot fetch the weights of {backbone} ({error}). "
            f"Where there is a network, python -c 'import keras; keras.applications.{backbone}(include_top=False)' "
            "leaves them in ~/.keras/models, which can be copied here; or give a .weights.h5 or .keras file of it"
        ) from error


def _read(path, config):
    if path.is_dir():
        return _values_of_trained(load_trained(path).model, path, config)
    if not path.is_file():
        raise FileNotFoundError(
            f"model.backbone_weights: there is no file {path}; wanted is imagenet, none, or a .weights.h5 or .keras "
            "file"
        )
    if path.suffix == ".keras":
        try:
            return _values_of_trained(keras.saving.load_model(path, compile=False), path, config)
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ValueError(f"model.backbone_weights: {path}: {error}") from None
    if path.suffix != ".h5":
        raise ValueError(f"model.backbone_weights: {path} must be a .weights.h5, .h5 or .keras file of the backbone")
    problems = []
    own = config["input_shape"][-1]
    for channels, include_top in ((3, False), (3, True), (own, False), (own, True)):
        network = as_model(config["backbone"], channels, "float32", include_top=include_top)
        try:
            network.load_weights(path)
        except (ValueError, OSError, KeyError, TypeError) as error:
            problems.append(str(error).splitlines()[0])
        else:
            return _values_of(network, config)
    raise ValueError(f"model.backbone_weights: {path} holds no weights of the backbone: {problems[0]}")


def _values_of_trained(network, path, config):
    if not isinstance(network, PSANet):
        return _values_of(network, config)
    if not network.has_backbone:
        raise ValueError(f"model.backbone_weights: {path} is a network without model.backbone")
    return [np.asarray(weight) for weight in network.get_layer("backbone").weights]
