"""Weights to and from the original implementation's state dicts (hszhao/semseg, PyTorch)."""

import dataclasses
import os
import re
from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf

from psanet_tf.layers import BatchNormalization, PSALayer
from psanet_tf.models.psanet import PSANet
from psanet_tf.models.state_dicts import from_torch_layout, read_state_dict, to_torch_layout, to_torch_shape

PARTS = {"backbone": "backbone", "psa": "attention module", "head": "main head", "aux": "auxiliary head"}
"""The parts of a `PSANet`, and what they are called in sentences."""

_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_STEM = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
_BRANCH = {
    "reduce_conv": "reduce{}.0",
    "reduce_bn": "reduce{}.1",
    "attention_conv": "attention{}.0",
    "attention_bn": "attention{}.1",
    "mask_conv": "attention{}.3",
}
_HEADS = {"head": "cls", "aux": "aux"}
_HEAD_PARTS = {"conv": 0, "bn": 1, "classifier": 4}
_PART_OF = {f"layer{stage}": "backbone" for stage in range(5)} | {"psa": "psa", "cls": "head", "aux": "aux"}
_COUNTER = "num_batches_tracked"
_LISTED = 20


class WeightsMismatchError(ValueError):
    """Weights that do not fit a network; nothing has been changed.

    Attributes:
        problems: one line each.
    """

    def __init__(self, message: str, problems: Collection[str] = ()):
        problems = list(problems)
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        super().__init__("\n  ".join([message, *problems[:_LISTED], *more]))
        self.problems = problems


@dataclasses.dataclass(frozen=True)
class LoadedWeights:
    """What `load_semseg_weights` did; names are the original implementation's.

    Attributes:
        loaded: names of the weights that were set.
        skipped: name -> why it was not set, for the weights of the parts asked for that kept their values.
        unused: names in the source that the target has no place for.
    """

    loaded: list[str]
    skipped: dict[str, str]
    unused: list[str]


def load_semseg_weights(
    target: PSANet | PSALayer,
    source: Mapping | str | os.PathLike,
    parts: str | Collection[str] | None = None,
    skip_mismatch: bool | Collection[str] = False,
) -> LoadedWeights:
    """Sets weights of a model from a state dict of the original implementation: all that is asked for, or none.

    Args:
        target: `PSANet`, or a built `PSALayer`.
        source: mapping from names to arrays in PyTorch's layouts, or the path of a ``.pth`` or
            ``.safetensors`` file (read without PyTorch, and without running what it may hold). A leading ``module.``
            of the names and a ``state_dict`` entry around them are understood, and so are the names of a ResNet for
            classification, of torchvision or the original implementation.
        parts: which parts of a `PSANet` to set, of "backbone", "psa", "head" and "aux"; default: all.
        skip_mismatch: leave weights as they are that are missing in `source` or have another shape there, and pass
            over what the target has no place for; or the parts in which to do so.

    Returns:
        LoadedWeights.

    Raises:
        ValueError: a name is missing or unexpected, or a shape differs (`WeightsMismatchError`, which lists them); a
            value is not finite, or a variance negative; nothing fits; `target` is of another kind or not built; a
            part that there is not; the file is no checkpoint. Nothing has been changed then.
        TypeError: `source` is neither a mapping nor a path.
        FileNotFoundError: there is no such file.

    Example:
        >>> load_semseg_weights(model, "resnet50_v2.pth", parts="backbone")
        >>> load_semseg_weights(model, "train_epoch_100.pth", skip_mismatch=True).skipped  # another class count
        {'cls.4.weight': 'shape [150, 512, 1, 1], needs [21, 512, 1, 1]', ...}
    """
    variables = semseg_variables(target)
    parts, lenient = _checked_parts(target, parts, skip_mismatch)
    state = read_state_dict(source)
    variables = {name: variable for name, variable in variables.items() if _part_of(target, name) in parts}
    loaded, problems, skipped = [], [], {}
    for name, variable in variables.items():
        part, shape = _part_of(target, name), to_torch_shape(variable.shape)
        reason = _mismatch(state, name, shape)
        if reason is None:
            loaded.append(name)
            # Converted once more below: all of them together would be another copy of the whole file.
            fault = _fault(name, _converted(state[name], variable), state[name])
            problems += [f"{name}: {fault}"] if fault else []
        elif part in lenient:
            skipped[name] = reason
        else:
            problems.append(f"missing: {name} {list(shape)}" if name not in state else f"{name}: {reason}")
    unexpected = _unexpected(target, state, parts)
    problems += [f"unexpected: {name}" for name in unexpected if _part_of(target, name) in parts - lenient]
    if not lenient and parts == _all_parts(target):
        problems += [f"unexpected: {name}" for name in unexpected if _part_of(target, name) is None]
    if not loaded and not problems:
        problems = ["nothing in it fits"]
    if problems:
        raise WeightsMismatchError(f"the weights do not fit {target.name!r}, nothing was changed:", problems)
    for name in loaded:
        variables[name].assign(_converted(state[name], variables[name]))
    return LoadedWeights(loaded, skipped, unexpected)


def semseg_state_dict(model: PSANet | PSALayer) -> dict[str, np.ndarray]:
    """The weights of a model under the original implementation's names and in PyTorch's layouts.

    Args:
        model: `PSANet`, or a built `PSALayer`.

    Returns:
        {name: NumPy array}, complete: ``{k: torch.from_numpy(v) for k, v in ...}`` loads with ``strict=True``.
    """
    state = {}
    for name, variable in semseg_variables(model).items():
        state[name] = to_torch_layout(np.asarray(variable))
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


def part_of(name: str) -> str | None:
    """The part of a `PSANet` that a name of the original implementation belongs to, None for none of them."""
    return _PART_OF.get(name.partition(".")[0])


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
    for direction in layer.directions:
        # In the bi-direction module the original marks the distribute direction's names.
        suffix = "_p" if layer.psa_type == "bi-direction" and direction == "distribute" else ""
        for name, sublayer in getattr(layer, direction).sublayers().items():
            variables.update(_layer_variables(sublayer, f"{prefix}{_BRANCH[name].format(suffix)}"))
    variables.update(_layer_variables(layer.proj_conv, f"{prefix}proj.0"))
    variables.update(_layer_variables(layer.proj_bn, f"{prefix}proj.1"))
    return variables


def _layer_variables(layer, module):
    if isinstance(layer, BatchNormalization):
        return {f"{module}.{name}": getattr(layer, attribute) for name, attribute in _BATCH_NORM.items()}
    variables = {f"{module}.weight": layer.kernel}
    if layer.use_bias:
        variables[f"{module}.bias"] = layer.bias
    return variables


def _all_parts(target):
    return {"layer"} if isinstance(target, PSALayer) else set(PARTS)


def _part_of(target, name):
    # A PSALayer by itself is one part.
    return "layer" if isinstance(target, PSALayer) else part_of(name)


def _checked_parts(target, parts, skip_mismatch):
    """(parts to set, those of them in which a mismatch is skipped), as sets."""
    everything = _all_parts(target)

    def checked(argument, value, others):
        names = {value} if isinstance(value, str) else value
        if isinstance(target, PSALayer):
            raise ValueError(f"{argument} is for the parts of a PSANet; {target.name!r} is a PSALayer, got {value!r}")
        if not isinstance(names, Collection) or not names or not set(names) <= everything:
            raise ValueError(f"{argument} must be {others} of {', '.join(map(repr, PARTS))}, got {value!r}")
        return set(names)

    chosen = everything if parts is None else checked("parts", parts, "one or more")
    if isinstance(skip_mismatch, bool):
        return chosen, chosen if skip_mismatch else set()
    return chosen, chosen & checked("skip_mismatch", skip_mismatch, "True, False, or one or more")


def _mismatch(state, name, shape):
    if name not in state:
        return "not in the source"
    found = np.shape(state[name])
    return None if found == shape else f"shape {list(found)}, needs {list(shape)}"


def _converted(array, variable):
    with np.errstate(over="ignore"):  # what overflows is found with the values that are not finite
        return from_torch_layout(array).astype(tf.as_dtype(variable.dtype).as_numpy_dtype)


def _fault(name, value, given):
    """Why a value cannot be a weight, or None."""
    if given.dtype.kind in "bc":
        return f"dtype {given.dtype}, needs real numbers"
    finite = np.isfinite(value)
    if not finite.all():
        return f"{finite.size - np.count_nonzero(finite)} of {finite.size} values are NaN or infinite"
    if name.endswith("running_var") and value.min() < 0:
        return f"a variance of {value.min():.3g}, needs at least 0"
    return None


def _unexpected(target, state, parts):
    expected = semseg_variables(target)
    counters = {name.rpartition(".")[0] + "." + _COUNTER for name in expected if name.endswith("running_mean")}
    others = [name for name in state if name not in expected and name not in counters]
    return [name for name in others if _part_of(target, name) in parts | {None}]
