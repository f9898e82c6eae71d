"""State dicts as PyTorch keeps them: reading them, their layouts, and the names that backbones have in them."""

import os
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import safetensors

from psanet_tf.weights.files import kind_of_weights
from psanet_tf.weights.pytorch_files import read_pytorch_file

_STEM_MODULES = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4", "conv3": "6", "bn3": "7"}


def read_state_dict(source: Mapping | str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a state dict; those of a backbone by itself under the original implementation's names.

    Args:
        source: mapping from names to arrays or CPU tensors, or the path of a ``.pth`` or ``.safetensors`` file. A
            ``state_dict`` entry around them and a leading ``module.`` of the names are understood, and so are the
            names of a ResNet for classification: torchvision's, the original implementation's backbone, or
            MMSegmentation's.

    Returns:
        {name: array}; those of a ``.pth`` file are views of the mapped file.

    Raises:
        TypeError: `source` is neither a mapping nor a path.
        ValueError: an entry is no array; the file holds no dict of tensors, is cut short, or wants something run.
        FileNotFoundError: there is no such file.
    """
    if isinstance(source, (str, os.PathLike)):
        source = _read_checkpoint(Path(source))
    if not isinstance(source, Mapping):
        raise TypeError(
            "source must be a mapping from names to arrays, or the path of a .pth or .safetensors file, "
            f"got {type(source).__name__} {reprlib.repr(source)}"
        )
    state = source.get("state_dict", source)
    if not isinstance(state, Mapping):
        raise TypeError(f"the state_dict of source must be a mapping from names to arrays, got {type(state).__name__}")
    state = {str(name).removeprefix("module."): _as_array(name, value) for name, value in state.items()}
    return _with_segmentation_names(state) if {"conv1.weight", "stem.0.weight"} & state.keys() else state


def from_torch_layout(array: np.ndarray) -> np.ndarray:
    """Convolution kernels [out, in, kh, kw] -> [kh, kw, in, out]; all else as it is."""
    return np.transpose(array, (2, 3, 1, 0)) if np.ndim(array) == 4 else np.asarray(array)


def to_torch_layout(array: np.ndarray) -> np.ndarray:
    """Convolution kernels [kh, kw, in, out] -> [out, in, kh, kw]; all else as it is."""
    return np.ascontiguousarray(np.transpose(array, (3, 2, 0, 1))) if array.ndim == 4 else array


def to_torch_shape(shape: Iterable[int]) -> tuple[int, ...]:
    """The shape of a variable in PyTorch's layout."""
    shape = tuple(shape)
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape


def _as_array(name, value):
    if hasattr(value, "detach"):  # a tensor of PyTorch, which need not be installed
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind in "OSU":
        raise ValueError(f"the entry {name!r} of source is no array of numbers but {type(value).__name__}")
    return array


def _with_segmentation_names(state):
    """A classification ResNet's arrays, without its classifier, as the backbone of a segmentation network."""
    renamed = {}
    for name, value in state.items():
        module, _, leaf = name.partition(".")
        if module in _STEM_MODULES:
            renamed[f"layer0.{_STEM_MODULES[module]}.{leaf}"] = value
        elif module == "stem":
            renamed[f"layer0.{leaf}"] = value
        elif module != "fc":
            renamed[name] = value
    return renamed


def _read_checkpoint(path):
    wanted = "wanted is a file of weights, .pth or .safetensors"
    if path.is_dir():
        raise ValueError(f"{path} is a folder; {wanted}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}; {wanted}")
    kind = kind_of_weights(path)
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind != "PyTorch":
        raise ValueError(f"{path} holds no weights but {kind}; {wanted}")
    checkpoint = read_pytorch_file(path)
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} must hold a dict of tensors, got {type(checkpoint).__name__}")
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, dict) or not any(isinstance(value, np.ndarray) for value in state.values()):
        raise ValueError(f"{path} holds a dict without tensors; its entries: {reprlib.repr(list(checkpoint))}")
    return state


def _read_safetensors(path):
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable .safetensors file, or is cut short: {error}") from None
