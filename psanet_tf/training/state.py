"""What resuming needs, in one file: every variable of model, optimizer and metrics, and the place in the run."""

import dataclasses
import json
import os
import zipfile
from pathlib import Path

import numpy as np

from psanet_tf.files import atomic_file
from psanet_tf.keras_api import keras


@dataclasses.dataclass(frozen=True)
class Position:
    """A place in a run.

    Attributes:
        epoch: whole epochs done.
        step: steps done in the epoch after them.
        best_miou: best validation mIoU so far, or None before the first validation.
        best_epoch: the epoch it is from, counted from 1.
        best_weights: `weights_identity` of its checkpoint, on the worker that writes it.
        monitored: what early stopping looks at, or None.
        monitored_best: its best value so far, or None before the first.
        waited: values since then.
    """

    epoch: int = 0
    step: int = 0
    best_miou: float | None = None
    best_epoch: int | None = None
    best_weights: str | None = None
    monitored: str | None = None
    monitored_best: float | None = None
    waited: int = 0


def save_state(path: Path, model: keras.Model, position: Position, is_chief: bool = True) -> None:
    """Writes the state; the older one stays beside it, see `previous_state`.

    Args:
        path: an ``.npz`` file.
        model: compiled keras.Model whose optimizer is built.
        position: Position; within an epoch the mean values of its metrics so far are kept too.
        is_chief: False on workers that leave the file to the first one; metrics are summed over all workers, so
            all of them have to come here.
    """
    variables = _variables(model)
    arrays = {f"variable{index}": variable.numpy() for index, variable in enumerate(variables)}
    if position.step:
        arrays |= {f"metric{index}": variable.numpy() for index, variable in enumerate(model.metrics_variables)}
    if not is_chief:
        return
    facts = {"position": dataclasses.asdict(position), "variables": len(variables)}
    needed = sum(array.nbytes for array in arrays.values())
    with (
        atomic_file(path, needed_bytes=needed, keep_as=previous_state(path)) as temporary,
        open(temporary, "wb") as file,
    ):
        np.savez(file, facts=json.dumps(facts), **arrays)


def previous_state(path: Path) -> Path:
    """Where the state lies that was saved before the one in `path`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def restore_state(path: str | os.PathLike, model: keras.Model) -> tuple[Position, list[np.ndarray]]:
    """Sets every variable of model and optimizer as `save_state` found it.

    Args:
        path: a file of `save_state`.
        model: compiled keras.Model whose optimizer is built.

    Returns:
        (Position, values for `model.metrics_variables`, in their order; none at the start of an epoch). The metrics
        have no variables yet before `fit` runs.

    Raises:
        ValueError: the file is damaged, or of another model or optimizer.
    """
    variables = _variables(model)
    try:
        with np.load(path) as stored:
            facts = json.loads(str(stored["facts"]))
            arrays = [stored[f"variable{index}"] for index in range(facts["variables"])]
            metrics = [stored[f"metric{index}"] for index in range(len(stored.files) - 1 - len(arrays))]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error})") from None
    if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
        raise ValueError(f"{path} holds the {len(arrays)} variables of another model or optimizer")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return Position(**facts["position"]), metrics


def _variables(model):
    return [*model.variables, *model.optimizer.variables]
