"""From a YAML file and `key=value` overrides to a checked `Config`, and back."""

import io
import json
import os
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from psanet_tf.config.data import DataSection
from psanet_tf.config.evaluate import EvaluateSection
from psanet_tf.config.model import ModelSection
from psanet_tf.config.section import Section
from psanet_tf.config.train import TrainSection
from psanet_tf.feature_sizes import OUTPUT_STRIDE, feature_size, shrunk_size


class Config(Section):
    """A whole run: data, model, training, evaluation."""

    data: DataSection
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()

    @pydantic.model_validator(mode="after")
    def _coarse_labels_fit(self):
        zoom_factor, crop_size = self.train.zoom_factor, self.data.crop_size
        if zoom_factor == OUTPUT_STRIDE:
            return self
        if self.model.variant == "mmseg":
            raise ValueError(f"train.zoom_factor must be {OUTPUT_STRIDE} with model.variant mmseg, got {zoom_factor}")
        nearest = [max(9, OUTPUT_STRIDE * round((size - 1) / OUTPUT_STRIDE) + 1) for size in crop_size]
        if nearest != list(crop_size):
            raise ValueError(
                f"data.crop_size must be of the form 8n+1 with train.zoom_factor {zoom_factor}, got {list(crop_size)}; "
                f"the nearest is {nearest}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _frozen_weights_are_trained(self):
        if self.train.init is None and self.model.backbone_weights is None:
            if self.train.freeze:
                raise ValueError("train.freeze needs init, or model.backbone_weights: random weights would stay random")
            if self.train.freeze_batch_norm:
                raise ValueError(
                    "train.freeze_batch_norm needs init, or model.backbone_weights: batch normalization of random "
                    "weights has no statistics"
                )
        if self.model.backbone is not None and self.train.rematerialize != "none":
            raise ValueError(
                f"train.rematerialize is for the ResNet without model.backbone, whose blocks are known: leave it out "
                f"with {self.model.backbone}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _auxiliary_loss_has_a_head(self):
        aux_weight = self.train.aux_weight
        if not self.model.aux_head and aux_weight not in (0, TrainSection.model_fields["aux_weight"].default):
            raise ValueError(f"train.aux_weight: model.aux_head is false, {aux_weight:g} would change nothing")
        return self

    @pydantic.model_validator(mode="after")
    def _mask_fits_crop(self):
        model = self.model
        if not model.use_psa or model.mask_size is None or model.backbone is not None:  # whose sizes it alone knows
            return self
        features = feature_size(self.data.crop_size, model.output_stride)
        height, width = shrunk_size(features, model.shrink_factor, model.variant)
        if model.compact and model.mask_size != (height, width):
            raise ValueError(
                f"model.mask_size: a compact mask has one weight per position, {[height, width]} for "
                f"data.crop_size {list(self.data.crop_size)} and model.shrink_factor {model.shrink_factor}, "
                f"got {list(model.mask_size)}; leave it out to get that"
            )
        even_ones = model.variant == "mmseg"
        if not model.compact and any(size < 1 or (size % 2 == 0 and not even_ones) for size in model.mask_size):
            raise ValueError(
                f"model.mask_size: rows and columns of an over-complete mask must be "
                f"{'positive' if even_ones else 'odd and positive (even ones are for variant: mmseg)'}, "
                f"got {list(model.mask_size)}; {[2 * height - 1, 2 * width - 1]} covers the whole crop"
            )
        return self


# Of a configuration that is read for other things; where its data are wanted all the same, a message has this text.
_NO_ROOT = "(it is not set)"


def load_config(path: str | os.PathLike, overrides: Iterable[str] = (), needs_root: bool = True) -> Config:
    """Reads and checks a configuration.

    Args:
        path: a YAML file (YAML 1.2: ``1e-4`` is a number).
        overrides: strings ``"section.key=value"``; the value is read as YAML.
        needs_root: False for those who read no data: `data.root` may be missing then.

    Returns:
        Config.

    Raises:
        ValueError: not YAML, an unknown key, a wrong type, an impossible value; the message names the
            file and every key at fault.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    try:
        tree = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must hold sections such as 'data:' and 'train:', got {type(tree).__name__}")
    for override in overrides:
        _apply_override(tree, override)
    if not needs_root and isinstance(tree.get("data"), dict):
        tree["data"].setdefault("root", _NO_ROOT)
    try:
        # JSON mode is strict about types but takes a list for a tuple, as YAML writes it.
        return Config.model_validate_json(json.dumps(tree, default=str))
    except pydantic.ValidationError as error:
        raise ValueError(f"{path} is not a valid configuration:\n{_describe(error)}") from None


def override_evaluate(
    section: EvaluateSection | None, overrides: Iterable[str], source: str | os.PathLike
) -> EvaluateSection:
    """An `EvaluateSection` with overrides, for weights without a configuration.

    Args:
        section: EvaluateSection, or None for the defaults.
        overrides: strings ``"evaluate.key=value"``.
        source: what messages call the weights.

    Returns:
        EvaluateSection.

    Raises:
        ValueError: an override of another section, an unknown key, an impossible value.
    """
    tree = {"evaluate": {} if section is None else section.model_dump(mode="json")}
    for override in overrides:
        if not override.startswith("evaluate."):
            raise ValueError(
                f"{source} lies in no run folder: only keys of evaluate can be set without --config, got {override!r}"
            )
        _apply_override(tree, override)
    try:
        return EvaluateSection.model_validate_json(json.dumps(tree["evaluate"], default=str))
    except pydantic.ValidationError as error:
        problems = _describe(error).replace("\n  ", "\n  evaluate.").replace("  ", "  evaluate.", 1)
        raise ValueError(f"the overrides for {source} do not fit:\n{problems}") from None


def dump_config(config: Config) -> str:
    """The configuration as YAML text that `load_config` reads back to an equal one."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(config.model_dump(mode="json"), stream)
    return stream.getvalue()


def flat_config(config: Config) -> dict[str, Any]:
    """{"section.key": value} of a `Config`, every key of every section; values as in JSON."""
    flat = {}

    def add(prefix, section, values):
        for key, value in section:
            if isinstance(value, Section):
                add(f"{prefix}{key}.", value, values[key])
            else:
                flat[prefix + key] = values[key]

    add("", config, config.model_dump(mode="json"))
    return flat


def _apply_override(tree, override):
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ValueError(f"an override must look like train.batch_size=8, got {override!r}")
    for part in parts[:-1]:
        child = tree.get(part)
        if child is None:
            child = tree[part] = {}
        if not isinstance(child, dict):
            raise ValueError(f"override {override!r}: {part!r} is a value, not a section")
        tree = child
    try:
        tree[parts[-1]] = YAML(typ="safe", pure=True).load(value)
    except YAMLError as error:
        raise ValueError(f"override {override!r}: the value is not YAML: {error}") from None


def _describe(error):
    lines = []
    for item in error.errors():
        if item["type"] == "default_factory_not_called":
            # Of a default that depends on a value which is wrong, and told of.
            continue
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "there is no such key" + _known_keys(item["loc"])
        elif item["type"] == "missing":
            message = "is required"
        elif not isinstance(item["input"], dict):
            message += f" (got {item['input']!r})"
        lines.append(f"  {key}: {message}" if key else f"  {message}")
    return "\n".join(lines)


def _known_keys(location):
    section = Config
    for part in location[:-1]:
        field = section.model_fields.get(part)
        kinds = [] if field is None else [field.annotation, *typing.get_args(field.annotation)]
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
        if section is None:
            return ""
    return f"; known here: {', '.join(section.model_fields)}"
