"""What the public implementations call the weights of a network in their state dicts."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from psanet_tf.keras_api import keras
from psanet_tf.layers import BatchNormalization, PSALayer
from psanet_tf.models.psanet import PSANet

_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_COUNTER = "num_batches_tracked"
_STEM = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4", "conv3": "6", "bn3": "7"}
_SHORTCUT = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}


@dataclasses.dataclass(frozen=True)
class Naming:
    """The names of one implementation.

    Attributes:
        variant: of `PSANet` and `PSALayer`, whose weights these names are for.
        loader: name of the function that loads such weights.
        stem, stages: what goes before the modules of the stem, and before "layer1" to "layer4".
        heads: layer of `PSANet` -> module, for the layers of both heads.
        attention: what goes before the modules of the attention module in a whole network.
        branch: sublayer of a `PSABranch` -> module; {} stands for the mark of the distribute direction.
        projection: sublayer of a `PSALayer` -> module.
        parts: (beginning of a name, part of a `PSANet`) in the order in which to look.
    """

    variant: str
    loader: str
    stem: str
    stages: str
    heads: Mapping[str, str]
    attention: str
    branch: Mapping[str, str]
    projection: Mapping[str, str]
    parts: tuple[tuple[str, str], ...]

    def variables(self, target: PSANet | PSALayer) -> dict:
        """{name: variable} for every weight of a network or of a built layer.

        Raises:
            ValueError: `target` is of another kind or variant, or not built.
        """
        if not isinstance(target, (PSANet, PSALayer)):
            raise ValueError(f"target must be a PSANet or a PSALayer, got {type(target).__name__}")
        if target.variant != self.variant:
            other = naming_of(target)
            raise ValueError(
                f"target must be of variant={self.variant!r}, {target.name!r} is of variant={target.variant!r}: "
                f"use {other.loader} for weights of that one"
            )
        if isinstance(target, PSALayer):
            return self._attention_variables(target, "")
        if target.has_backbone:
            raise ValueError(
                f"{target.name!r} has a backbone of its own, for whose weights the public implementations have no names"
            )
        variables = {}
        for layer in target.layers:
            if isinstance(layer, PSALayer):
                variables.update(self._attention_variables(layer, self.attention))
            elif layer.weights:
                variables.update(_layer_variables(layer, self._module(layer.name)))
        return variables

    def part_of(self, name: str) -> str | None:
        """The part of a `PSANet` that a name belongs to, None for none of them."""
        return next((part for beginning, part in self.parts if name.startswith(beginning)), None)

    def with_backbone_names(self, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A state dict with the names of a backbone by itself (layer0 to layer4) as those in a whole network."""
        if any(self.part_of(name) == "backbone" for name in state):
            return state
        renamed = {}
        for name, value in state.items():
            module, _, rest = name.partition(".")
            if module == "layer0":
                renamed[f"{self.stem}{rest}"] = value
            else:
                renamed[f"{self.stages}{name}" if re.fullmatch(r"layer[1-4]", module) else name] = value
        return renamed

    def _module(self, layer_name):
        if layer_name in self.heads:
            return self.heads[layer_name]
        prefix, _, part = layer_name.partition("_")
        if prefix == "stem":
            return f"{self.stem}{_STEM[part]}"
        stage, block, part = re.fullmatch(r"(layer\d)_(\d+)_(\w+)", layer_name).groups()
        return f"{self.stages}{stage}.{block}.{_SHORTCUT.get(part, part)}"

    def _attention_variables(self, layer, prefix):
        if not layer.built:
            raise ValueError(f"{layer.name!r} has no weights yet: call it on an input, or build() it, first")
        variables = {}
        for direction in layer.directions:
            # In the bi-direction module the distribute direction's names are marked.
            mark = "_p" if layer.psa_type == "bi-direction" and direction == "distribute" else ""
            for name, sublayer in getattr(layer, direction).sublayers().items():
                variables.update(_layer_variables(sublayer, prefix + self.branch[name].format(mark)))
        for name, module in self.projection.items():
            variables.update(_layer_variables(getattr(layer, name), prefix + module))
        return variables


def counter_of(name: str) -> str | None:
    """Name of the count of batches that PyTorch keeps beside a running variance, which nothing here needs."""
    module, _, leaf = name.rpartition(".")
    return f"{module}.{_COUNTER}" if leaf == "running_var" else None


def naming_of(target: PSANet | PSALayer) -> Naming:
    """The names for the variant of a network or layer."""
    return MMSEG if target.variant == "mmseg" else SEMSEG


def _layer_variables(layer: keras.layers.Layer, module):
    if isinstance(layer, BatchNormalization):
        return {f"{module}.{name}": getattr(layer, attribute) for name, attribute in _BATCH_NORM.items()}
    variables = {f"{module}.weight": layer.kernel}
    if layer.use_bias:
        variables[f"{module}.bias"] = layer.bias
    return variables


SEMSEG = Naming(
    variant="semseg",
    loader="load_semseg_weights",
    stem="layer0.",
    stages="",
    heads={
        "head_conv": "cls.0",
        "head_bn": "cls.1",
        "head_classifier": "cls.4",
        "aux_conv": "aux.0",
        "aux_bn": "aux.1",
        "aux_classifier": "aux.4",
    },
    attention="psa.",
    branch={
        "reduce_conv": "reduce{}.0",
        "reduce_bn": "reduce{}.1",
        "attention_conv": "attention{}.0",
        "attention_bn": "attention{}.1",
        "mask_conv": "attention{}.3",
    },
    projection={"proj_conv": "proj.0", "proj_bn": "proj.1"},
    parts=(*((f"layer{stage}.", "backbone") for stage in range(5)), ("psa.", "psa"), ("cls.", "head"), ("aux.", "aux")),
)
"""Those of the original implementation, hszhao/semseg."""

MMSEG = Naming(
    variant="mmseg",
    loader="load_mmseg_weights",
    stem="backbone.stem.",
    stages="backbone.",
    heads={
        "head_conv": "decode_head.bottleneck.conv",
        "head_bn": "decode_head.bottleneck.bn",
        "head_classifier": "decode_head.conv_seg",
        "aux_conv": "auxiliary_head.convs.0.conv",
        "aux_bn": "auxiliary_head.convs.0.bn",
        "aux_classifier": "auxiliary_head.conv_seg",
    },
    attention="decode_head.",
    branch={
        "reduce_conv": "reduce{}.conv",
        "reduce_bn": "reduce{}.bn",
        "attention_conv": "attention{}.0.conv",
        "attention_bn": "attention{}.0.bn",
        "mask_conv": "attention{}.1",
    },
    projection={"proj_conv": "proj.conv", "proj_bn": "proj.bn"},
    parts=(
        ("backbone.", "backbone"),
        ("decode_head.bottleneck.", "head"),
        ("decode_head.conv_seg.", "head"),
        ("decode_head.", "psa"),
        ("auxiliary_head.", "aux"),
    ),
)
"""Those of MMSegmentation."""
