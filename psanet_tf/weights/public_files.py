"""Networks from public implementations' files alone: the file tells which network it belongs to."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import DatasetInfo, dataset_info, distinct_colors
from psanet_tf.feature_sizes import OUTPUT_STRIDE
from psanet_tf.models import PSANet
from psanet_tf.models.resnet import BLOCKS
from psanet_tf.weights.description import Description, describe
from psanet_tf.weights.files import kind_of_weights
from psanet_tf.weights.naming import MMSEG, SEMSEG
from psanet_tf.weights.public_weights import load_public_weights
from psanet_tf.weights.pytorch_files import read_pytorch_file
from psanet_tf.weights.registry import PublishedWeights, published_weights
from psanet_tf.weights.state_dicts import read_state_dict


def load_published_network(entry: PublishedWeights, path: Path) -> PSANet:
    """The network of published weights, with its classes and its authors' protocol.

    Args:
        entry: of the registry.
        path: its file.

    Raises:
        ValueError: it is a backbone, or the file does not fit the entry.
    """
    refuse_backbone(entry)
    model = PSANet(depth=entry.depth, stem=entry.stem, **entry.model)
    load_public_weights(model, path)
    evaluate = EvaluateSection.model_validate(entry.evaluate, strict=False)
    describe(model, Description(dataset_info(entry.dataset), evaluate, entry.name))
    return model


def refuse_backbone(entry: PublishedWeights) -> None:
    """ValueError for published weights that are no whole network; to be called before anything is fetched."""
    if entry.is_backbone:
        raise ValueError(
            f"{entry.name} is a backbone trained on ImageNet, without heads: psanet train --init {entry.name} starts "
            "from it"
        )


def load_public_file(path: Path, source: str) -> PSANet:
    """The network that a ``.pth`` or ``.safetensors`` file of a public implementation holds the weights of.

    A file with the name of published weights is taken for these. Of others, names and shapes tell the network; what
    they leave open is taken as in their owners' configurations, and said on standard error.

    Args:
        path: the file.
        source: what the user called it.

    Raises:
        ValueError: it holds no whole PSANet, or one whose arguments its names and shapes do not tell.
    """
    for entry in published_weights().values():
        if entry.file_name == path.name and not entry.is_backbone:
            return load_published_network(entry, path)
    state = read_state_dict(path)
    arguments = network_arguments(state, path)
    model = PSANet(**arguments)
    load_public_weights(model, state)
    print(
        f"{path} does not say how its network was built: taken for "
        + ", ".join(f"{name} {value}" for name, value in arguments.items())
        + ", with an over-complete mask and softmax; give its configuration with --config if it is another",
        file=sys.stderr,
    )
    info = _classes_in(path, model.num_classes)
    if info is not None:
        describe(model, Description(info, None, source))
    return model


def network_arguments(state: Mapping[str, np.ndarray], path: Path) -> dict[str, Any]:
    """Arguments of the `PSANet` that a state dict is of.

    Args:
        state: of `read_state_dict`.
        path: what messages call it.

    Returns:
        Keyword arguments of `PSANet`.

    Raises:
        ValueError: no whole network, or one that names and shapes do not tell from others.
    """
    naming = next((naming for naming in (SEMSEG, MMSEG) if f"{naming.heads['head_classifier']}.weight" in state), None)
    if naming is None:
        raise ValueError(
            f"{path} holds no whole PSANet: the weights of its classifier, {SEMSEG.heads['head_classifier']} or "
            f"{MMSEG.heads['head_classifier']}, are missing (a backbone alone is for psanet train --init)"
        )

    def shape(module):
        try:
            return np.shape(state[f"{module}.weight"])
        except KeyError:
            raise ValueError(f"{path} holds no whole PSANet: {module}.weight is missing") from None

    blocks = tuple(_count_blocks(state, f"{naming.stages}layer{stage}.") for stage in (1, 2, 3, 4))
    width = shape(f"{naming.stages}layer1.0.conv1")[0]
    arguments = {"variant": naming.variant, "num_classes": shape(naming.heads["head_classifier"])[0]}
    depth = next((depth for depth, usual in BLOCKS.items() if tuple(usual) == blocks), None)
    arguments |= {"blocks": blocks} if depth is None else {"depth": depth}
    arguments |= {} if width == 64 else {"width": width}
    if naming is SEMSEG:
        arguments["stem"] = "classic" if shape(f"{naming.stem}0")[2] == 7 else "deep"
    reduce, mask = (naming.attention + naming.branch[name] for name in ("reduce_conv", "mask_conv"))
    if f"{reduce.format('')}.weight" not in state:
        return arguments | {"use_psa": False, "input_shape": (465, 465, 3)}
    if f"{reduce.format('_p')}.weight" not in state:
        raise ValueError(
            f"{path} holds an attention of one direction, and does not say whether it collects or distributes: give "
            "the configuration, with model.psa_type"
        )
    count = shape(mask.format(""))[0]
    side = math.isqrt(count)
    if side * side != count or (naming is SEMSEG and side % 2 == 0):
        raise ValueError(
            f"{path}: a mask of {count} offsets is not square, or is compact: give the configuration, with "
            "model.mask_size or model.compact and data.crop_size"
        )
    mid_channels = shape(reduce.format(""))[0]
    arguments |= {} if mid_channels == 8 * width else {"mid_channels": mid_channels}
    crop = OUTPUT_STRIDE * (side - 1) + 1 if naming is SEMSEG else None
    return arguments | {"mask_size": (side, side), "input_shape": (crop, crop, 3)}


def _count_blocks(state, prefix):
    return len({name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)})


def _classes_in(path, num_classes):
    """DatasetInfo of the classes that MMSegmentation wrote into a file, or None."""
    if kind_of_weights(path) != "PyTorch":
        return None
    checkpoint = read_pytorch_file(path)
    meta = checkpoint.get("meta") if isinstance(checkpoint, dict) else None
    names = meta.get("CLASSES") if isinstance(meta, dict) else None
    if not names or len(names) != num_classes or not all(isinstance(name, str) for name in names):
        return None
    palette = meta.get("PALETTE")
    colors = distinct_colors(num_classes) if palette is None else np.array(palette)
    return DatasetInfo(path.stem, tuple(names), colors)
