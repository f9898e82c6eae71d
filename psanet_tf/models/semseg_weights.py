"""Weights to and from the original implementation's state dicts (hszhao/semseg, PyTorch)."""

import re
import zipfile
from pathlib import Path

import numpy as np

from psanet_tf.layers import BatchNormalization, PSALayer
from psanet_tf.models.psanet import PSANet

_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_STEM = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
_HEADS = {"head": "cls", "aux": "aux"}
_HEAD_PARTS = {"conv": 0, "bn": 1, "classifier": 4}
_COUNTER = "num_batches_tracked"


def load_semseg_weights(target, source):
    """Sets every weight of a model from a state dict of the original implementation.

    Args:
        target: `PSANet`, or a built `PSALayer`.
        source: mapping from names to arrays in PyTorch's layouts, or the path of a ``.pth`` file (read with
            torch, which must be installed, without executing what the file may hold). A leading ``module.``
            of the names and a ``state_dict`` entry around them are understood.

    Raises:
        ValueError: a name is missing or unexpected, or a shape differs (all of them are listed; nothing has
            been changed then); `target` is of another kind or not built; the file is no checkpoint.
        FileNotFoundError: there is no such file.
        ImportError: torch is needed to read the file and not installed.
    """
    variables = semseg_variables(target)
    state = read_state_dict(source)
    expected = {name: _to_torch_shape(variable.shape) for name, variable in variables.items()}
    problems = [f"missing: {name} {list(shape)}" for name, shape in expected.items() if name not in state]
    counters = {name.rpartition(".")[0] + "." + _COUNTER for name in expected if name.endswith("running_mean")}
    problems += [f"unexpected: {name}" for name in state if name not in expected and name not in counters]
    problems += [
        f"{name}: shape {list(np.shape(state[name]))}, needs {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(np.shape(state[name])) != shape
    ]
    if problems:
        raise ValueError(f"the weights do not fit {target.name!r}, nothing was changed:\n  " + "\n  ".join(problems))
    for name, variable in variables.items():
        variable.assign(from_torch_layout(state[name]))


def semseg_state_dict(model):
    """The weights of a model under the original implementation's names and in PyTorch's layouts.

    Args:
        model: `PSANet`, or a built `PSALayer`.

    Returns:
        {name: NumPy array}, complete: ``{k: torch.from_numpy(v) for k, v in ...}`` loads with ``strict=True``.
    """
    state = {}
    for name, variable in semseg_variables(model).items():
        state[name] = _to_torch_layout(np.asarray(variable))
        if name.endswith("running_var"):
            state[f"{name.rpartition('.')[0]}.{_COUNTER}"] = np.zeros((), np.int64)
    return state


def semseg_variables(target):
    """{name of the original implementation: variable} for every weight of a `PSANet` or `PSALayer`."""
    if isinstance(target, PSALayer):
        return _psa_variables(target, "")
    if not isinstance(target, PSANet):
        raise ValueError(f"target must be a PSANet or a PSALayer, got {type(target).__name__}")
    variables = {}
    for layer in target.layers:
        if isinstance(layer, PSALayer):
            variables.update(_psa_variables(layer, "psa."))
        elif layer.weights:
            variables.update(_layer_variables(layer, _module_name(layer.name)))
    return variables


def read_state_dict(source):
    """{name: array} of a mapping or a ``.pth`` file, without ``module.`` prefixes."""
    if isinstance(source, (str, Path)):
        source = _read_checkpoint(Path(source))
    source = source.get("state_dict", source)
    return {name.removeprefix("module."): np.asarray(value) for name, value in source.items()}


def from_torch_layout(array):
    """Convolution kernels [out, in, kh, kw] -> [kh, kw, in, out]; all else as it is."""
    return np.transpose(array, (2, 3, 1, 0)) if np.ndim(array) == 4 else np.asarray(array)


def _to_torch_layout(array):
    return np.ascontiguousarray(np.transpose(array, (3, 2, 0, 1))) if array.ndim == 4 else array


def _to_torch_shape(shape):
    shape = tuple(shape)
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape


def _module_name(layer_name):
    """Name of the original's module for a layer of `PSANet`."""
    prefix, _, part = layer_name.partition("_")
    if prefix == "stem":
        return f"layer0.{_STEM[part]}"
    if prefix in _HEADS:
        return f"{_HEADS[prefix]}.{_HEAD_PARTS[part]}"
    stage, block, part = re.fullmatch(r"(layer\d)_(\d+)_(\w+)", layer_name).groups()
    return f"{stage}.{block}." + {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(part, part)


def _psa_variables(layer, prefix):
    if not layer.built:
        raise ValueError(f"{layer.name!r} has no weights yet: call it on an input, or build() it, first")
    variables = {}

    def add(part, module):
        variables.update(_layer_variables(getattr(layer, part), prefix + module))

    for direction in layer.directions:
        # In the bi-direction module the original marks the distribute direction's names.
        suffix = "_p" if layer.psa_type == "bi-direction" and direction == "distribute" else ""
        add(f"{direction}_reduce_conv", f"reduce{suffix}.0")
        add(f"{direction}_reduce_bn", f"reduce{suffix}.1")
        add(f"{direction}_attention_conv", f"attention{suffix}.0")
        add(f"{direction}_attention_bn", f"attention{suffix}.1")
        add(f"{direction}_mask_conv", f"attention{suffix}.3")
    add("proj_conv", "proj.0")
    add("proj_bn", "proj.1")
    return variables


def _layer_variables(layer, module):
    if isinstance(layer, BatchNormalization):
        return {f"{module}.{name}": getattr(layer, attribute) for name, attribute in _BATCH_NORM.items()}
    variables = {f"{module}.weight": layer.kernel}
    if layer.use_bias:
        variables[f"{module}.bias"] = layer.bias
    return variables


def _read_checkpoint(path):
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        import torch
    except ImportError:
        raise ImportError(
            f"reading {path} needs PyTorch (pip install torch), which is not installed; "
            "a mapping from names to NumPy arrays does without"
        ) from None
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile, ImportError) as error:
        raise ValueError(f"{path} is not a readable PyTorch checkpoint, or is cut short: {error}") from None
    except Exception as error:
        # torch.load wraps pickle's own errors in a class of the pickle module.
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ValueError(f"{path} is not a readable PyTorch checkpoint, or is cut short: {error}") from None
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} must hold a dict of tensors, got {type(checkpoint).__name__}")
    state = checkpoint.get("state_dict", checkpoint)
    return {
        name: tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy() for name, tensor in state.items()
    }
