"""Layers that a training leaves as they are."""

import difflib
import fnmatch
from collections.abc import Sequence

from psanet_tf.layers import BatchNormalization
from psanet_tf.models import PSANet

BACKBONE = "backbone"
_BACKBONE_PATTERNS = ("stem_*", "layer[1-4]_*")


def freeze(model: PSANet, which: Sequence[str]) -> None:
    """Freezes layers; their batch normalization keeps its statistics, too.

    Args:
        model: PSANet.
        which: names of layers, or patterns with ``*``, ``?`` and ``[...]``; "backbone" for the whole ResNet.

    Raises:
        ValueError: a pattern that no layer's name fits; the message names the nearest.
    """
    layers = {layer.name: layer for layer in model._flatten_layers(include_self=False)}
    for pattern in which:
        patterns = _BACKBONE_PATTERNS if pattern == BACKBONE else (pattern,)
        fitting = [name for name in layers if any(fnmatch.fnmatchcase(name, one) for one in patterns)]
        if not fitting:
            near = difflib.get_close_matches(pattern, [BACKBONE, *layers], n=3, cutoff=0.4) or sorted(layers)[:3]
            raise ValueError(
                f"train.freeze: no layer's name fits {pattern!r}; there are {BACKBONE}, psa, head_*, aux_*, and for "
                f"instance {', '.join(near)}"
            )
        for name in fitting:
            layers[name].trainable = False


def freeze_batch_norm(model: PSANet) -> None:
    """Freezes every batch normalization: statistics, scales and shifts stay as they are."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, BatchNormalization):
            layer.trainable = False
