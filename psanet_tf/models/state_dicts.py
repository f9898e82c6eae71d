"""State dicts as PyTorch keeps them: reading them, their layouts, and the names that backbones have in them."""

import os
import pickle
import reprlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from psanet_tf.models.weights_files import kind_of_weights

_STEM_MODULES = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4", "conv3": "6", "bn3": "7"}


def read_state_dict(source: Mapping | str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a state dict under the original implementation's names.

    Args:
        source: mapping from names to arrays or CPU tensors, or the path of a ``.pth`` file. A ``state_dict`` entry
            around them and a leading ``module.`` of the names are understood, and so are the names of a ResNet for
            classification: torchvision's, or the original implementation's backbone.

    Raises:
        TypeError: `source` is neither a mapping nor a path.
        ValueError: an entry is no array; the file is no PyTorch checkpoint of a dict, or cut short.
        FileNotFoundError: there is no such file.
        ImportError: torch is needed to read the file and not installed.
    """
    if isinstance(source, (str, os.PathLike)):
        source = _read_checkpoint(Path(source))
    if not isinstance(source, Mapping):
        raise TypeError(
            "source must be a mapping from names to arrays, or the path of a .pth file, "
            f"got {type(source).__name__} {reprlib.repr(source)}"
        )
    state = source.get("state_dict", source)
    if not isinstance(state, Mapping):
        raise TypeError(f"the state_dict of source must be a mapping from names to arrays, got {type(state).__name__}")
    state = {str(name).removeprefix("module."): _as_array(name, value) for name, value in state.items()}
    return _with_segmentation_names(state) if "conv1.weight" in state else state


def from_torch_layout(array):
    """Convolution kernels [out, in, kh, kw] -> [kh, kw, in, out]; all else as it is."""
    return np.transpose(array, (2, 3, 1, 0)) if np.ndim(array) == 4 else np.asarray(array)


def to_torch_layout(array):
    """Convolution kernels [kh, kw, in, out] -> [out, in, kh, kw]; all else as it is."""
    return np.ascontiguousarray(np.transpose(array, (3, 2, 0, 1))) if array.ndim == 4 else array


def to_torch_shape(shape):
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
        elif module != "fc":
            renamed[name] = value
    return renamed


def _read_checkpoint(path):
    wanted = "wanted is a .pth file of the original implementation"
    if path.is_dir():
        raise ValueError(f"{path} is a folder; {wanted}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}; {wanted}")
    kind = kind_of_weights(path)
    if kind != "PyTorch":
        raise ValueError(f"{path} holds no PyTorch checkpoint but {kind}; {wanted}")
    try:
        import torch
    except ImportError:
        raise ImportError(
            f"reading {path} needs PyTorch (pip install torch), which is not installed; "
            "a mapping from names to NumPy arrays does without"
        ) from None
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        ImportError,
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(f"{path} is not a readable PyTorch checkpoint, or is cut short: {error}") from None
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} must hold a dict of tensors, got {type(checkpoint).__name__}")
    return checkpoint
