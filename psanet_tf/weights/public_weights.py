"""Weights to and from state dicts of the public implementations, whichever it is (`Naming`)."""

import dataclasses
import os
from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf

from psanet_tf.layers import PSALayer
from psanet_tf.models.psanet import PSANet
from psanet_tf.weights.naming import Naming, counter_of, naming_of
from psanet_tf.weights.state_dicts import from_torch_layout, read_state_dict, to_torch_layout, to_torch_shape

PARTS = {"backbone": "backbone", "psa": "attention module", "head": "main head", "aux": "auxiliary head"}
"""The parts of a `PSANet`, and what they are called in sentences."""

_LISTED = 20


class WeightsMismatchError(ValueError):
    """Weights that do not fit a network; nothing has been changed.

    Attributes:
        problems: one line each.
    """

    def __init__(self, message: str, problems: Collection[str] = ()) -> None:
        problems = list(problems)
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        super().__init__("\n  ".join([message, *problems[:_LISTED], *more]))
        self.problems = problems


@dataclasses.dataclass(frozen=True)
class LoadedWeights:
    """What loading weights did; names are the implementation's whose weights they are.

    Attributes:
        loaded: names of the weights that were set.
        skipped: name -> why it was not set, for the weights of the parts asked for that kept their values.
        unused: names in the source that the target has no place for.
    """

    loaded: list[str]
    skipped: dict[str, str]
    unused: list[str]


def load_public_weights(
    target: PSANet | PSALayer,
    source: Mapping | str | os.PathLike,
    parts: str | Collection[str] | None = None,
    skip_mismatch: bool | Collection[str] = False,
    naming: Naming | None = None,
) -> LoadedWeights:
    """Sets weights of a model from a state dict of a public implementation: all that is asked for, or none.

    Args:
        target, source, parts, skip_mismatch: see `load_semseg_weights`.
        naming: the implementation's names; default: those of the target's variant.

    Returns:
        LoadedWeights.

    Raises:
        as `load_semseg_weights`.
    """
    naming = naming_of(target) if naming is None else naming
    expected = naming.variables(target)
    parts, lenient = _checked_parts(target, parts, skip_mismatch)
    state = read_state_dict(source)
    if isinstance(target, PSANet):
        state = naming.with_backbone_names(state)

    def part_of(name):
        # A PSALayer by itself is one part.
        return "layer" if isinstance(target, PSALayer) else naming.part_of(name)

    variables = {name: variable for name, variable in expected.items() if part_of(name) in parts}
    loaded, problems, skipped = [], [], {}
    for name, variable in variables.items():
        part, shape = part_of(name), to_torch_shape(variable.shape)
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
    known = {*expected, *map(counter_of, expected)}
    unexpected = [name for name in state if name not in known and part_of(name) in parts | {None}]
    problems += [f"unexpected: {name}" for name in unexpected if part_of(name) in parts - lenient]
    if not lenient and parts == _all_parts(target):
        problems += [f"unexpected: {name}" for name in unexpected if part_of(name) is None]
    if not loaded and not problems:
        problems = ["nothing in it fits"]
    if problems:
        raise WeightsMismatchError(f"the weights do not fit {target.name!r}, nothing was changed:", problems)
    for name in loaded:
        variables[name].assign(_converted(state[name], variables[name]))
    return LoadedWeights(loaded, skipped, unexpected)


def public_state_dict(model: PSANet | PSALayer, naming: Naming | None = None) -> dict[str, np.ndarray]:
    """The weights of a model under the names of a public implementation and in PyTorch's layouts.

    Args:
        model: `PSANet`, or a built `PSALayer`.
        naming: the implementation's names; default: those of the model's variant.

    Returns:
        {name: NumPy array}, complete: ``{k: torch.from_numpy(v) for k, v in ...}`` loads with ``strict=True``.

    Raises:
        ValueError: a model of another kind or variant, or not built.
    """
    naming = naming_of(model) if naming is None else naming
    state = {}
    for name, variable in naming.variables(model).items():
        state[name] = to_torch_layout(np.asarray(variable))
        if counter_of(name):
            state[counter_of(name)] = np.zeros((), np.int64)
    return state


def _all_parts(target):
    return {"layer"} if isinstance(target, PSALayer) else set(PARTS)


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
