"""Layers that a training leaves as they are."""

import difflib
import fnmatch
from collections.abc import Sequence

from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet

BACKBONE = "backbone"
_RESNET_PATTERNS = ("stem_*", "layer[1-4]_*")


def backbone_layers(model: PSANet) -> list[keras.layers.Layer]:
    """The layer "backbone" of a network that was given one, or the layers of the ResNet."""
    patterns = (BACKBONE,) if model.has_backbone else _RESNET_PATTERNS
    return [layer for layer in model.layers if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)]


def freeze(model: PSANet, which: Sequence[str]) -> None:
    """Freezes layers; their batch normalization keeps its statistics, too.

    Args:
        model: PSANet.
        which: names of layers, or patterns with ``*``, ``?`` and ``[...]``; "backbone" for all of it.

    Raises:
        ValueError: a pattern that no layer's name fits; the message names the nearest.
    """
    layers = list(model._flatten_layers(include_self=False))
    for pattern in which:
        patterns = _RESNET_PATTERNS if pattern == BACKBONE and not model.has_backbone else (pattern,)
        fitting = [layer for layer in layers if any(fnmatch.fnmatchcase(layer.name, one) for one in patterns)]
        if not fitting:
            names = sorted({layer.name for layer in layers})
            near = difflib.get_close_matches(pattern, [BACKBONE, *names], n=3, cutoff=0.4) or names[:3]
            raise ValueError(
                f"train.freeze: no layer's name fits {pattern!r}; there are {BACKBONE}, psa, head_*, aux_*, and for "
                f"instance {', '.join(near)}"
            )
        for layer in fitting:
            layer.trainable = False
