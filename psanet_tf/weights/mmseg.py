"""Weights to and from MMSegmentation's state dicts (open-mmlab/mmsegmentation, PyTorch)."""

import os
from collections.abc import Collection, Mapping

import numpy as np

from psanet_tf.layers import PSALayer
from psanet_tf.models.psanet import PSANet
from psanet_tf.weights.naming import MMSEG
from psanet_tf.weights.public_weights import LoadedWeights, load_public_weights, public_state_dict


def load_mmseg_weights(
    target: PSANet | PSALayer,
    source: Mapping | str | os.PathLike,
    parts: str | Collection[str] | None = None,
    skip_mismatch: bool | Collection[str] = False,
) -> LoadedWeights:
    """Sets weights of a model from a state dict of MMSegmentation: all that is asked for, or none.

    Args:
        target: `PSANet` of ``variant="mmseg"``, or a built `PSALayer` of it.
        source: as for `load_semseg_weights`; the names are MMSegmentation's, or those of a ResNet by itself (its
            ImageNet weights of the stem "v1c").
        parts, skip_mismatch: as for `load_semseg_weights`.

    Returns:
        LoadedWeights.

    Raises:
        as `load_semseg_weights`.

    Example:
        >>> model = PSANet(150, variant="mmseg", input_shape=(512, 512, 3), mask_size=(66, 66))
        >>> load_mmseg_weights(model, "psanet_r50-d8_512x512_160k_ade20k.pth")
    """
    return load_public_weights(target, source, parts, skip_mismatch, MMSEG)


def mmseg_state_dict(model: PSANet | PSALayer) -> dict[str, np.ndarray]:
    """The weights of a model under MMSegmentation's names and in PyTorch's layouts.

    Args:
        model: `PSANet` of ``variant="mmseg"``, or a built `PSALayer` of it.

    Returns:
        {name: NumPy array}, complete: ``{k: torch.from_numpy(v) for k, v in ...}`` loads with ``strict=True``.

    Raises:
        ValueError: a model of another kind or variant, or not built.
    """
    return public_state_dict(model, MMSEG)
