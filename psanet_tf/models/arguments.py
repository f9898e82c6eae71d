"""Checks of `PSANet`'s arguments."""

from psanet_tf.feature_sizes import OUTPUT_STRIDE
from psanet_tf.layers.arguments import (
    VARIANTS,
    checked_align_corners,
    checked_block_size,
    checked_bool,
    checked_choice,
    checked_float_policy,
    checked_integer,
    checked_integers,
    checked_mask_size,
    checked_normalization_factor,
    checked_number,
    checked_zoom_factor,
)
from psanet_tf.layers.psa import PSA_TYPES
from psanet_tf.models.backbones import checked_backbone, checked_preprocessing
from psanet_tf.models.resnet import BLOCKS, STAGES, STEMS
from psanet_tf.ops.psa_mask import IMPLEMENTATIONS


def checked_arguments(arguments: dict) -> dict:
    """`PSANet`'s arguments as plain Python values, which JSON can hold.

    Raises:
        ValueError: an argument is of another kind or out of its range, or does not go with another one; the message
            names them.
    """
    checked = dict(arguments)
    variant = checked["variant"] = checked_choice("variant", arguments["variant"], VARIANTS)
    checked["align_corners"] = checked_align_corners(arguments["align_corners"], variant)
    checked["num_classes"] = checked_integer("num_classes", arguments["num_classes"], minimum=2)
    checked["blocks"] = _checked_blocks(arguments["blocks"])
    checked["depth"] = _checked_depth(arguments["depth"], needed=checked["blocks"] is None)
    checked["width"] = checked_integer("width", arguments["width"])
    usual_stem = "v1c" if variant == "mmseg" else "deep"
    checked["stem"] = usual_stem if arguments["stem"] is None else checked_choice("stem", arguments["stem"], STEMS)
    if checked["stem"] == "v1c" and checked["width"] % 2:
        raise ValueError(f"width must be even with stem='v1c', which begins with half of it, got {checked['width']}")
    checked["dropout"] = checked_number("dropout", arguments["dropout"], lambda rate: 0 <= rate < 1, "in [0, 1)")
    for name in ("use_psa", "compact", "psa_softmax", "stride_in_1x1", "synchronized_batch_norm", "aux_head"):
        checked[name] = checked_bool(name, arguments[name])
    # Those of the attention also where it is left out: a wrong one is a mistake there too.
    checked["psa_type"] = checked_choice("psa_type", arguments["psa_type"], PSA_TYPES)
    checked["implementation"] = checked_choice("implementation", arguments["implementation"], IMPLEMENTATIONS)
    checked["block_size"] = checked_block_size(arguments["block_size"], checked["compact"])
    checked["shrink_factor"] = checked_integer("shrink_factor", arguments["shrink_factor"])
    checked["mask_size"] = checked_mask_size(arguments["mask_size"], checked["compact"], variant)
    if arguments["mid_channels"] is not None:
        checked["mid_channels"] = checked_integer("mid_channels", arguments["mid_channels"])
    checked["normalization_factor"] = checked_normalization_factor(arguments["normalization_factor"])
    checked["zoom_factor"] = checked_zoom_factor(arguments["zoom_factor"])
    checked["dtype"] = checked_float_policy("dtype", arguments["dtype"])
    if not isinstance(arguments["name"], str):
        raise ValueError(f"name must be a string, got {arguments['name']!r}")
    checked["input_shape"] = _checked_input_shape(arguments["input_shape"], checked["zoom_factor"])
    if variant == "mmseg":
        _check_mmseg(checked)
    _check_backbone(checked, arguments)
    return checked


def _check_backbone(checked, arguments):
    channels = checked["input_shape"][2]
    backbone = checked["backbone"] = checked_backbone(arguments["backbone"], checked["dtype"], channels)
    checked["backbone_preprocessing"] = checked_preprocessing(arguments["backbone_preprocessing"], backbone)
    stride = checked["output_stride"] = checked_integer("output_stride", arguments["output_stride"])
    names = arguments["feature_layers"]
    if names is not None:
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"feature_layers must be names of layers of the backbone, got {names!r}")
        checked["feature_layers"] = tuple(names)
    if backbone is None:
        if stride not in STAGES:
            raise ValueError(f"output_stride must be one of {', '.join(map(str, STAGES))}, got {stride}")
        if names is not None:
            raise ValueError(f"feature_layers is for networks with a backbone, got {names!r}")
        return
    for name, usual in (("blocks", None), ("stem", None), ("stride_in_1x1", False)):
        if arguments[name] != usual:
            raise ValueError(
                f"{name} is the ResNet's that stands without a backbone: leave it out beside backbone, got "
                f"{arguments[name]!r}"
            )
        checked[name] = usual


def _check_mmseg(checked):
    only = {"stem": "v1c", "stride_in_1x1": False, "zoom_factor": 8}
    for name, value in only.items():
        if checked[name] != value:
            raise ValueError(f"{name} must be {value!r} or left out with variant='mmseg', got {checked[name]!r}")


def _checked_depth(depth, needed):
    try:
        number = checked_integer("depth", depth)
    except ValueError:
        number = None
    if number is None or (needed and number not in BLOCKS):
        raise ValueError(f"depth must be one of {', '.join(map(str, BLOCKS))}, got {depth!r}; or give blocks")
    return number


def _checked_blocks(blocks):
    if blocks is None:
        return None
    wanted = "four positive integers, one per stage"
    counts = checked_integers("blocks", blocks, wanted)
    if len(counts) != 4 or min(counts) < 1:
        raise ValueError(f"blocks must be {wanted}, got {blocks!r}")
    return counts


def _checked_input_shape(shape, zoom_factor):
    try:
        given = tuple(shape)
        lengths = checked_integers("input_shape", [0 if length is None else length for length in given], "")
    except (TypeError, ValueError):
        given = lengths = ()
    if len(lengths) != 3 or given[2] is None or lengths[2] < 1:
        raise ValueError(f"input_shape must be (H, W, C), with None for a dynamic H or W, got {shape!r}")
    for length, as_given in zip(lengths[:2], given, strict=False):
        if as_given is not None and length < OUTPUT_STRIDE + 1:
            raise ValueError(f"input_shape must have at least {OUTPUT_STRIDE + 1} rows and columns, got {length}")
        if as_given is not None and zoom_factor < OUTPUT_STRIDE and (length - 1) % OUTPUT_STRIDE:
            nearest = OUTPUT_STRIDE * round((length - 1) / OUTPUT_STRIDE) + 1
            raise ValueError(
                f"input_shape must have rows and columns of the form 8n + 1 with zoom_factor={zoom_factor}, "
                f"got {length}; the nearest is {nearest}"
            )
    return tuple(None if as_given is None else length for length, as_given in zip(lengths, given, strict=True))
