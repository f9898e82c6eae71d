"""What an export says of itself, and whether there can be one: all that is known before any work."""

import dataclasses

import tensorflow as tf

from psanet_tf import __version__
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.findings import counted
from psanet_tf.data.scale import with_base_size
from psanet_tf.inference.attention import LONGEST_SIDE, attention_grid
from psanet_tf.inference.whole_image import padded_length
from psanet_tf.models import PSANet
from psanet_tf.runtimes.limits import request_limits
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.weights.description import description_of

# Of each format; the first one is the default.
PRECISIONS = {
    "saved_model": ("float32", "bfloat16"),
    "onnx": ("float32",),
    "openvino": ("float32", "float16", "int8"),
    "litert": ("float32", "float16", "int8"),
}
IMPLEMENTATIONS = ("stock", "custom")
DEVICES = ("cpu", "gpu")


def export_metadata(
    model: PSANet,
    info: DatasetInfo,
    evaluate: EvaluateSection | None = None,
    precision: str = "float32",
    implementation: str = "stock",
    whole: bool = False,
    device: str | None = None,
    format: str = "saved_model",
) -> ModelMetadata:
    """What an export will say of itself; arguments and errors as of `export_saved_model` and `export_file`.

    Returns:
        ModelMetadata.
    """
    known = description_of(model) if isinstance(model, PSANet) else None
    evaluate = evaluate or (known and known.evaluate) or EvaluateSection()
    takes_any_size = whole or evaluate.protocol == "mmseg"
    if device is None:
        device = "gpu" if tf.config.get_visible_devices("GPU") else "cpu"
    _check(model, info, precision, implementation, takes_any_size, device, format)
    protocol = _protocol(evaluate, whole, info, model)
    return ModelMetadata(
        dataset=info.name,
        class_names=info.class_names,
        colors=tuple(tuple(color) for color in info.colors.tolist()),
        ignore_label=info.ignore_label,
        input_size=None if takes_any_size else tuple(model.input_shape[1:3]),
        mean=info.images.mean,
        std=info.images.std,
        **protocol,
        align_corners=model.get_config()["align_corners"],
        **dataclasses.asdict(_limits(model, info, protocol, takes_any_size)),
        precision=precision,
        implementation=implementation,
        directions=_directions(model),
        package_version=__version__,
        training_long_side=info.long_side,
        device=device,
        channels=info.images.channels,
        dtype=info.images.dtype,
        bands=info.images.bands,
        display_range=info.images.display_range,
        temperature=1.0 if known is None else known.temperature,
    )


def expected_bytes(model: PSANet, precision: str) -> int:
    """About what an export of a network takes on the disk, rather less: its parameters without the auxiliary head's."""
    count = sum(weight.shape.num_elements() for weight in model.inference().weights)
    return int(0.9 * count * {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}[precision])


def _protocol(evaluate, whole, info, model):
    """The fields of `ModelMetadata` that say how predict_bytes labels images."""
    fields = dict.fromkeys(("crop_size", "base_size", "stride_rate", "scale", "stride"))
    fields |= {"protocol": evaluate.protocol, "scales": evaluate.scales, "flip": evaluate.flip}
    if evaluate.protocol == "mmseg":
        if whole:
            return fields | {"protocol": None, "mode": "whole", "scales": (1.0,), "flip": False}
        own = {name: getattr(evaluate, name) for name in ("mode", "scale", "crop_size", "stride")}
        return fields | own
    fields["base_size"] = with_base_size(evaluate, info).base_size
    if whole:
        return fields | {"mode": "whole"}
    crop_size = tuple(model.input_shape[1:3])
    return fields | {"mode": "slide", "crop_size": crop_size, "stride_rate": evaluate.stride_rate}


def _limits(model, info, protocol, takes_any_size):
    """`RequestLimits` of an export with the fields `protocol` of its metadata."""
    resized_pixels = 0
    if protocol["protocol"] is None:
        resized_pixels = None
    elif protocol["protocol"] == "semseg" and protocol["mode"] == "whole":
        long_side = round(max(protocol["scales"]) * protocol["base_size"])
        resized_pixels = padded_length(long_side) * padded_length(-(-long_side // 2))
    directions, positions = _directions(model), 1
    if directions:
        size = (LONGEST_SIDE, LONGEST_SIDE) if takes_any_size else tuple(model.input_shape[1:3])
        map_size, *_ = attention_grid(model, size, model.feature_size(size))
        positions = int(tf.reduce_prod(map_size))
    input_size = None if takes_any_size else tuple(model.input_shape[1:3])
    return request_limits(info.images, info.num_classes, input_size, resized_pixels, positions, len(directions))


def _check(model, info, precision, implementation, takes_any_size, device, format):
    if not isinstance(model, PSANet):
        raise ValueError(f"model must be a psanet_tf.PSANet, got {type(model).__name__}")
    if format not in PRECISIONS:
        raise ValueError(f"format must be one of {', '.join(PRECISIONS)}, got {format!r}")
    if precision not in PRECISIONS[format]:
        raise ValueError(f"precision of {format} must be one of {', '.join(PRECISIONS[format])}, got {precision!r}")
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {implementation!r}")
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    if info.num_classes != model.num_classes:
        raise ValueError(
            f"the network has {model.num_classes} classes, but the dataset {info.name!r} has {info.num_classes}"
        )
    _ = info.images.fill  # refuses where nothing says how they are normalized
    if info.images.channels != model.input_shape[-1]:
        raise ValueError(
            f"the network takes {counted(model.input_shape[-1], 'channel')}, but the images of {info.name!r} have "
            f"{info.images.channels}"
        )
    zoom_factor = model.get_config()["zoom_factor"]
    if zoom_factor != 8:
        raise ValueError(f"the network must answer at input size (zoom_factor 8), got {zoom_factor}")
    if not takes_any_size and None in model.input_shape[1:3]:
        raise ValueError(
            f"a network of any size, {model.input_shape}, has no crop size: export it with whole=True, or by "
            "evaluate.protocol=mmseg"
        )


def _directions(model):
    arguments = model.get_config()
    if not arguments["use_psa"]:
        return ()
    return ("collect", "distribute") if arguments["psa_type"] == "bi-direction" else (arguments["psa_type"],)
