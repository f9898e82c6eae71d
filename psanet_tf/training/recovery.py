"""Going on with a run whose files a crash, a full disk or a slip of the hand has damaged: what can be had again is."""

import dataclasses
import sys

import numpy as np

from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet
from psanet_tf.training.averaging import averaged_weights
from psanet_tf.training.checkpoints import copy_checkpoint, plain_copy, save_checkpoint
from psanet_tf.training.run_folder import TrainingFolder
from psanet_tf.training.state import Position, previous_state, restore_state
from psanet_tf.weights.files import check_keras_file, weights_identity


def recover_state(run: TrainingFolder, model: keras.Model) -> tuple[Position, list[np.ndarray]] | None:
    """Sets the model to the run's last state, or to the one before it where that is damaged.

    Args:
        run: TrainingFolder.
        model: compiled keras.Model whose optimizer is built.

    Returns:
        (Position, values of the metrics) as of `restore_state`, or None where the run has saved nothing yet.

    Raises:
        ValueError: neither state can be read, but the folder holds one or checkpoints; nothing has been changed.
    """
    problems = []
    for file in (run.state_file, previous_state(run.state_file)):
        if not file.is_file():
            problems.append(f"there is no {file.name}")
            continue
        try:
            found = restore_state(file, model)
        except ValueError as error:
            problems.append(str(error))
            continue
        if problems:
            print(f"{problems[0]}; going on from the state saved before it, {file}", file=sys.stderr)
        return found
    there = run.trained_files()
    if not there:
        return None
    raise ValueError(
        f"run folder: {run.path} holds {there[0].name}, but no state that its run could go on from "
        f"({'; '.join(problems)}). Nothing was changed. {_advice(run)}"
    )


def recover_checkpoints(run: TrainingFolder, model: PSANet, position: Position, finished: bool) -> Position:
    """Makes last.keras and best.keras what the state says that they are.

    A run that was stopped between saving its state and its best checkpoint gets that here.

    Args:
        run: TrainingFolder.
        model: the model, set to the state of the run.
        position: Position of the state.
        finished: whether nothing is left to train.

    Returns:
        Position; without a best epoch where its weights are lost and the run goes on.

    Raises:
        ValueError: the run is finished, and its best weights are lost.
    """
    if position.epoch and not position.step:
        problem = _problem(run.last_file)
        if problem:
            print(f"{problem}; it is written again from {run.state_file.name}", file=sys.stderr)
            plain = plain_copy(model)
            with averaged_weights(model):
                plain.set_weights(model.get_weights())
            save_checkpoint(plain, run.last_file)
    wanted = position.best_weights
    if wanted is None or _identity(run.best_file) == wanted:
        return position
    problem = (
        _problem(run.best_file) or f"{run.best_file} holds other weights than those of epoch {position.best_epoch}"
    )
    for file in (run.last_file, *sorted(run.checkpoint_folder.glob("epoch_*.keras"))):
        if _identity(file) == wanted:
            print(f"{problem}; it is copied again from {file.name}", file=sys.stderr)
            copy_checkpoint(file, run.best_file)
            return position
    if finished:
        raise ValueError(
            f"{problem}, and no other checkpoint holds the best weights, those of epoch {position.best_epoch}. "
            f"Use --weights {run.last_file}, the last epoch's, or train anew in another folder"
        )
    print(
        f"{problem}, and no other checkpoint holds the best weights so far, those of epoch {position.best_epoch}; "
        "the next validation makes a new best.keras",
        file=sys.stderr,
    )
    return dataclasses.replace(position, best_miou=None, best_epoch=None, best_weights=None)


def _advice(run):
    for file in (run.last_file, run.best_file, *sorted(run.checkpoint_folder.glob("epoch_*.keras"), reverse=True)):
        if not _problem(file):
            return f"Start a new run from its weights in another folder: --init {file} --run-dir NEW_FOLDER"
    return "None of its checkpoints is whole: start again in another folder, or empty this one"


def _problem(file):
    try:
        check_keras_file(file)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return None


def _identity(file):
    try:
        return weights_identity(file)
    except (FileNotFoundError, ValueError):
        return None
