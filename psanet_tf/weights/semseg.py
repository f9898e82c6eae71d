"""Weights to and from the original implementation's state dicts (hszhao/semseg, PyTorch)."""

import os
from collections.abc import Collection, Mapping

import numpy as np

from psanet_tf.layers import PSALayer
from psanet_tf.models.psanet import PSANet
from psanet_tf.weights.naming import SEMSEG
from psanet_tf.weights.public_weights import LoadedWeights, load_public_weights, public_state_dict


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
            value is not finite, or a variance negative; nothing fits; `target` is of another kind or
            variant, or not built; a part that there is not; the file is no checkpoint. Nothing has been changed then.
        TypeError: `source` is neither a mapping nor a path.
        FileNotFoundError: there is no such file.

    Example:
        >>> load_semseg_weights(model, "resnet50_v2.pth", parts="backbone")
        >>> load_semseg_weights(model, "train_epoch_100.pth", skip_mismatch=True).skipped  # another class count
        {'cls.4.weight': 'shape [150, 512, 1, 1], needs [21, 512, 1, 1]', ...}
    """
    return load_public_weights(target, source, parts, skip_mismatch, SEMSEG)


def semseg_state_dict(model: PSANet | PSALayer) -> dict[str, np.ndarray]:
    """The weights of a model under the original implementation's names and in PyTorch's layouts.

    Args:
        model: `PSANet`, or a built `PSALayer`.

    Returns:
        {name: NumPy array}, complete: ``{k: torch.from_numpy(v) for k, v in ...}`` loads with ``strict=True``.

    Raises:
        ValueError: a model of another kind or variant, or not built.
    """
    return public_state_dict(model, SEMSEG)
