"""Any backbone as the first part of a network: by its name, or a model of somebody's own."""

import contextlib
import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from psanet_tf.backbone_families import BACKBONES, PREPROCESSING, family_of
from psanet_tf.keras_api import keras, needs_keras_3
from psanet_tf.models.dilation import Feature, Grid, dilated_features

# Odd at every stride, so that the borders that keras.applications adds are those of odd sizes, the same on both sides.
_SIZE = 225


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A backbone as a `PSANet` has it.

    Attributes:
        model: images as the backbone wants them -> its features, those of the auxiliary head first if there is one.
        grid: Grid of the features that the main head gets.
        aux_grid: Grid of the auxiliary head's, or None.
    """

    model: keras.Model
    grid: Grid
    aux_grid: Grid | None


def checked_backbone(backbone: Any, dtype: str, channels: int) -> str | dict[str, Any] | keras.Model | None:
    """A backbone as `PSANet` takes it.

    Args:
        backbone: None, a name, a keras.Model, or what `keras.saving.serialize_keras_object` made of one.
        dtype: name of the dtype policy that the network has.
        channels: of the network's images.

    Raises:
        ValueError: none of these, a name that is not known or that this Keras does not have, or a model of another
            dtype, of several inputs, of other channels, or whose layers only its code knows.
        ImportError: it is given, and Keras is Keras 2, whose graphs cannot be rewritten.
    """
    if backbone is None:
        return None
    needs_keras_3("backbone (without it there is the ResNet of depth, blocks and width)")
    if isinstance(backbone, str):
        return _checked_name(backbone)
    if isinstance(backbone, dict):
        return backbone
    if not isinstance(backbone, keras.Model):
        raise ValueError(
            f"backbone must be a keras.Model, a name such as 'ResNet50' or None, got {type(backbone).__name__}"
        )
    if not isinstance(backbone, keras.Sequential) and not hasattr(backbone, "operations"):
        raise ValueError(
            f"backbone {backbone.name!r} must be a functional or sequential model: of a subclassed one the layers are "
            "known to its code alone; wrap its parts as keras.Model(inputs, outputs)"
        )
    if not backbone.built or len(backbone.inputs) != 1 or len(backbone.inputs[0].shape) != 4:
        raise ValueError(f"backbone {backbone.name!r} must have one input, images [N, H, W, C], and be built")
    if (own := backbone.inputs[0].shape[-1]) != channels:
        raise ValueError(f"backbone {backbone.name!r} takes images of {own} channels, input_shape says {channels}")
    policies = {layer.dtype_policy.name for layer in _layers_inside(backbone) if layer.weights}
    if policies - {dtype}:
        raise ValueError(
            f"backbone {backbone.name!r} has layers of dtype {', '.join(sorted(policies - {dtype}))}, the network is "
            f"of dtype {dtype!r}: build both under keras.config.set_dtype_policy({dtype!r}), or give the network that "
            "of the backbone"
        )
    return backbone


def _checked_name(name):
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=3, cutoff=0.5)
        raise ValueError(
            f"backbone {name!r} is not known; known are {', '.join(BACKBONES)}"
            + (f"; nearest: {', '.join(near)}" if near else "")
            + "; any other network can be given as a keras.Model"
        )
    if not hasattr(keras.applications, name):
        raise ValueError(f"backbone {name!r} is not in keras.applications of Keras {keras.__version__}")
    return name


def checked_preprocessing(kind: Any, backbone: str | dict[str, Any] | keras.Model | None) -> str | None:
    """What a backbone wants for an image: `kind`, or what is known of the networks of keras.applications.

    Raises:
        ValueError: no such kind, none for a network that is not known, one without a backbone or for a name.
    """
    described = ", ".join(f"{name!r} ({meaning})" for name, meaning in PREPROCESSING.items())
    if kind is not None and kind not in PREPROCESSING:
        raise ValueError(f"backbone_preprocessing must be one of {described}, got {kind!r}")
    if backbone is None or isinstance(backbone, str):
        own = None if backbone is None else BACKBONES[backbone].preprocessing
        if kind not in (None, own):
            whose = (
                "the ResNet without a backbone takes normalized images" if backbone is None else f"its own is {own!r}"
            )
            raise ValueError(f"backbone_preprocessing is for models given as backbone: {whose}; leave it out")
        return own
    if kind is not None:
        return kind
    own = _known_preprocessing(backbone) if isinstance(backbone, keras.Model) else None
    if own is None:
        raise ValueError(
            "backbone_preprocessing must say what the backbone takes for an image, since "
            f"{getattr(backbone, 'name', 'it')!r} is not known as a network of keras.applications: {described}"
        )
    return own


def _known_preprocessing(model):
    layers = _layers_inside(model)
    family = family_of(model.name, [layer.name for layer in [*model.layers, *layers]])
    if family is None:
        return None
    has_own = any(isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)) for layer in layers)
    return "raw" if family.has_switch and has_own else family.preprocessing


def build_backbone(
    backbone: str | dict[str, Any] | keras.Model,
    input_shape: Sequence[int | None],
    output_stride: int,
    feature_layers: Sequence[str] | None,
    aux_head: bool,
    synchronized: bool,
    dtype: str,
) -> Backbone:
    """The backbone with strides up to `output_stride`, on images of a size.

    Args:
        backbone: of `checked_backbone`.
        input_shape: (H, W, C).
        output_stride: stride of the features for the main head.
        feature_layers: layers of the backbone that give the features: of the auxiliary head, if there is one, and of
            the main head. Default: the last at the coarsest stride of the backbone for the main head, the last at half
            of that stride for the auxiliary one.
        aux_head: whether there is one.
        synchronized: batch normalization takes its statistics over all replicas.
        dtype: name of the dtype policy.

    Raises:
        ValueError: a backbone that cannot be rewritten, strides or layers that it does not have.
    """
    model = as_model(backbone, input_shape[-1], dtype)
    wide = "float64" if dtype == "float64" else "float32"
    images = keras.Input(input_shape, dtype=wide, name="prepared_images")
    if pyramid := getattr(model, "pyramid_outputs", None):  # keras-hub's, whose own output may be something else
        model = keras.Model(model.inputs, list(pyramid.values()), name=model.name, trainable=model.trainable)
    features = dilated_features(model, images, output_stride, synchronized)
    if not features:
        raise ValueError(f"backbone {model.name!r} gives no maps of features [N, h, w, C]")
    chosen = _named(features, feature_layers, aux_head) if feature_layers else _by_stride(features, aux_head)
    if chosen[-1].grid.stride != output_stride:
        stride = chosen[-1].grid.stride
        raise ValueError(
            f"output_stride={output_stride} is not to be had of backbone {model.name!r}: its layer {chosen[-1].name!r} "
            f"has stride {stride}; give output_stride={stride}"
        )
    outputs = [feature.tensor for feature in chosen]
    grids = [feature.grid for feature in chosen]
    rewritten = keras.Model(images, outputs, name="backbone")
    if not model.trainable:
        rewritten.trainable = False
    return Backbone(rewritten, grids[-1], grids[0] if aux_head else None)


def as_model(
    backbone: str | dict[str, Any] | keras.Model,
    channels: int,
    dtype: str,
    weights: str | None = None,
    include_top: bool = False,
) -> keras.Model:
    """The backbone as it was before its strides were changed.

    Args:
        backbone: of `checked_backbone`; a keras.Model is returned as it is.
        channels, dtype: of a new one.
        weights: of a new one that goes by its name: "imagenet", or None for random ones.
        include_top: whether a new one that goes by its name has its classifier.
    """
    if isinstance(backbone, keras.Model):
        return backbone
    if isinstance(backbone, dict):
        return keras.saving.deserialize_keras_object(_with_dtype(backbone, dtype))
    switch = {"include_preprocessing": False} if BACKBONES[backbone].has_switch else {}
    with _dtype_policy(dtype):
        return getattr(keras.applications, backbone)(
            include_top=include_top, weights=weights, input_shape=(_SIZE, _SIZE, channels), **switch
        )


def serialized_backbone(backbone: str | dict[str, Any] | keras.Model | None) -> str | dict[str, Any] | None:
    """What `PSANet`'s configuration keeps of its backbone, for JSON: its name, or its graph without weights.

    Raises:
        ValueError: a layer that does not say what its configuration is.
    """
    if not isinstance(backbone, keras.Model):
        return backbone
    # A plain model of the same graph: files need no class of anybody's, if the layers need none.
    pyramid = getattr(backbone, "pyramid_outputs", None)
    outputs = list(pyramid.values()) if pyramid else backbone.outputs
    plain = keras.Model(backbone.inputs, outputs, name=backbone.name)
    try:
        return keras.saving.serialize_keras_object(plain)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(f"backbone {backbone.name!r} cannot be described for files: {error}") from error


def _by_stride(features, aux_head):
    """The last feature at the coarsest stride, and before it the last at half of that one."""
    maps = [feature for feature in features if not feature.is_border]
    coarsest = max(feature.grid.own_stride for feature in maps)
    main = next(feature for feature in reversed(maps) if feature.grid.own_stride == coarsest)
    if not aux_head:
        return [main]
    finer = [feature for feature in maps if feature.grid.own_stride == coarsest / 2]
    if not finer:
        raise ValueError(
            f"the auxiliary head takes features of half of the coarsest stride, {coarsest}, and the backbone has none: "
            "name two layers in feature_layers, for the auxiliary and the main head, or set aux_head=False"
        )
    return [finer[-1], main]


def _named(features, names, aux_head):
    if len(names) != 1 + aux_head:
        wanted = "two layers, for the auxiliary and the main head" if aux_head else "one layer with aux_head=False"
        raise ValueError(f"feature_layers must name {wanted}, got {list(names)}")
    found = {feature.name: feature for feature in features}
    for name in names:
        if name not in found:
            near = difflib.get_close_matches(name, found, n=3, cutoff=0.3) or list(found)[-3:]
            raise ValueError(
                f"feature_layers: the backbone has no layer {name!r} that gives a map [N, h, w, C]; there are for "
                f"instance {', '.join(near)}"
            )
    return [found[name] for name in names]


def _layers_inside(model):
    """All layers that are no models, in whatever models."""
    return [layer for layer in model._flatten_layers(include_self=False) if not isinstance(layer, keras.Model)]


def _with_dtype(config, dtype):
    """A serialized model whose layers all have one dtype policy."""
    if isinstance(config, list):
        return [_with_dtype(value, dtype) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy" and "config" in config:
        return {**config, "config": {**config["config"], "name": dtype}}
    return {key: _with_dtype(value, dtype) for key, value in config.items()}


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


__all__ = [
    "Backbone",
    "Feature",
    "as_model",
    "build_backbone",
    "checked_backbone",
    "checked_preprocessing",
    "serialized_backbone",
]
