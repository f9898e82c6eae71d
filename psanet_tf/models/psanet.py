"""`PSANet`: dilated backbone, point-wise spatial attention, main and auxiliary head."""

import json
from typing import Any

import tensorflow as tf

from psanet_tf.feature_sizes import feature_size
from psanet_tf.keras_api import keras
from psanet_tf.layers import PSALayer, SpatialDropout2D
from psanet_tf.layers.arguments import checked_bool
from psanet_tf.layers.backbone_preprocessing import BackbonePreprocessing
from psanet_tf.layers.initializers import head_kernel
from psanet_tf.layers.trainable_flags import set_sublayer_flags, sublayer_flags
from psanet_tf.models.arguments import checked_arguments
from psanet_tf.models.backbones import build_backbone, serialized_backbone
from psanet_tf.models.cloning import Logits, is_functional_call, network_arguments, same_layers
from psanet_tf.models.convolution import ConvolutionBuilder
from psanet_tf.models.rematerialization import BlockwiseCall
from psanet_tf.models.resnet import BLOCKS, resnet_stages
from psanet_tf.ops.psa_attention import BlockSize


@keras.saving.register_keras_serializable("psanet_tf")
class PSANet(keras.Model):
    """Point-wise Spatial Attention Network for Scene Parsing (Zhao et al., ECCV 2018), a functional model.

    Args:
        num_classes: number of classes K.
        depth: 50, 101 or 152, the ResNet's.
        input_shape: (H, W, C) with H and W of at least 9 and C channels, 3 in the paper; (None, None, C) for any size,
            which needs `mask_size` and an over-complete mask. Feature row i of the ResNet's (H - 1) // 8 + 1 rows looks
            at pixel row 8i. Resizing with aligned corners puts the last one on the last pixel row, so that features and
            logits are exactly aligned for H of the form 8n + 1, and else drift apart from 0 pixels at the top to
            (H - 1) % 8 at the bottom; columns likewise.
        dropout: rate of the spatial dropout before both classifiers.
        use_psa: False leaves the attention module out: the dilated FCN baseline of the paper's ablation.
        psa_type, compact, shrink_factor, mask_size, mid_channels, normalization_factor, psa_softmax: see
            `PSALayer`; `mid_channels` defaults to 8 * `width`, the paper's 512.
        blocks: bottleneck blocks per stage, four integers; takes the place of `depth` for small networks.
        width: channels of the stem and of the first stage's bottlenecks, 64 in the paper; the heads scale
            with it.
        stem: "deep", the original's three 3x3 convolutions; "classic", one 7x7 convolution, for the weights of
            torchvision and keras.applications; or "v1c", MMSegmentation's three 3x3 convolutions of half as many
            channels. Default: "deep", and "v1c" for the mmseg variant.
        stride_in_1x1: strided blocks stride in their first 1x1 convolution, as in keras.applications, not in the
            3x3.
        zoom_factor: 8 gives logits at input resolution; 1, 2 and 4 give (size - 1) / 8 * zoom_factor + 1 and need
            sizes of the form 8n + 1.
        variant: "semseg", the network of the original implementation, or "mmseg", MMSegmentation's: stem "v1c", half
            the dilation in the first block of layer3 and layer4, and the attention module of that variant (see
            `PSALayer`). Its published weights have a `mask_size` of (97, 97) or (66, 66).
        align_corners: of the resize of the logits, and of the attention module's where nothing is shrunk. Default:
            True for the semseg variant, which takes nothing else, and False for the mmseg variant.
        synchronized_batch_norm: batch statistics over all replicas of the `tf.distribute` strategy.
        implementation, block_size: of the attention, as for `PSALayer`.
        backbone: None for the paper's ResNet, which `depth`, `blocks`, `stem` and `stride_in_1x1` describe. Or any
            other: the name of a network of `keras.applications` (`psanet_tf.backbone_families.BACKBONES`), with random
            weights; a functional or sequential keras.Model, whose weights are shared and not copied; or what
            `keras.saving.serialize_keras_object` made of one. It becomes the layer "backbone", its strides beyond
            `output_stride` dilations (see docs/backbones.md). Needs Keras 3.
        backbone_preprocessing: what a backbone that is a model takes for an image: "caffe", "tf", "tf128", "torch",
            "unit" or "raw" (`psanet_tf.backbone_families.PREPROCESSING`). The network does that with its normalized
            images, in the layer "preprocessing". Default: as keras.applications does, for its networks.
        output_stride: pixels between neighbouring features: 8, 16 or 32; for a backbone also what its own strides
            multiply to, such as 14 for patches of 14. Other strides than the ResNet's 8 put logits where the features
            look, at any size.
        feature_layers: names of the backbone's layers that give the features, of the auxiliary and of the main head.
            Default: the last layer at half of the backbone's coarsest stride, and the last at the coarsest.
        aux_head: False leaves the auxiliary head out: a network of one output, the logits, for `compile(loss)` and
            plain labels.
        dtype: dtype policy or its name, e.g. ``"mixed_bfloat16"``; default: Keras's global policy.
        name: name of the model.
        trainable: False freezes every layer. Single layers, and sublayers of the one called ``"psa"``, are frozen by
            their own `trainable`; files and configurations keep all of it.

    Call arguments:
        inputs: [N, H, W, C] images, normalized (`psanet_tf.data.ImageFormat`; RGB: `psanet_tf.data.normalize`).
        training: as in every Keras model.

    Returns:
        ``{"logits": [N, H, W, K], "aux_logits": [N, H, W, K]}``, float32 (float64 under a float64 policy); the logits
        alone without `aux_head`.

    Raises:
        ValueError: an argument out of its range; the message names it.

    `keras.models.clone_model(model)` and `PSANet.from_config(model.get_config())` make another one, with new weights.
    A clone whose layers a `clone_function` or `call_function` has changed is a plain functional model.

    Example:
        >>> model = PSANet(num_classes=150, depth=50)
        >>> model.inference()(tf.zeros([1, 465, 465, 3])).shape
        TensorShape([1, 465, 465, 150])
    """

    def __new__(cls, *args, **kwargs):
        if is_functional_call(args):
            plain = keras.Model(*args, **kwargs)
            arguments = network_arguments(plain.layers)
            if arguments is None or not same_layers(plain.layers, cls(**arguments).layers):
                return plain
        return super().__new__(cls, *args, **kwargs)

    def __init__(
        self,
        num_classes: int,
        depth: int = 50,
        input_shape: tuple[int | None, int | None, int] = (465, 465, 3),
        dropout: float = 0.1,
        use_psa: bool = True,
        psa_type: str = "bi-direction",
        compact: bool = False,
        shrink_factor: int = 2,
        mask_size: tuple[int, int] | None = None,
        mid_channels: int | None = None,
        normalization_factor: float | None = 1.0,
        psa_softmax: bool = True,
        blocks: tuple[int, int, int, int] | None = None,
        width: int = 64,
        stem: str | None = None,
        stride_in_1x1: bool = False,
        zoom_factor: int = 8,
        synchronized_batch_norm: bool = False,
        implementation: str = "auto",
        dtype: str | keras.mixed_precision.Policy | None = None,
        name: str = "psanet",
        trainable: bool = True,
        variant: str = "semseg",
        align_corners: bool | None = None,
        block_size: BlockSize = "auto",
        backbone: str | keras.Model | dict[str, Any] | None = None,
        backbone_preprocessing: str | None = None,
        output_stride: int = 8,
        feature_layers: tuple[str, ...] | None = None,
        aux_head: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if is_functional_call((num_classes, depth)):
            # From Keras 3's clone_model, which does this where a constructor takes *args and **kwargs.
            super().__init__(num_classes, depth, name=name)
            self._arguments = {**network_arguments(self.layers), "name": name}
            self._description = None  # of a trained network, which a clone with new weights is not
            self._blockwise_call = None
            return
        # Legacy Keras wants no attribute set before the functional constructor has run.
        config = dict(locals())
        for key in ("self", "__class__", "trainable", "args", "kwargs"):
            del config[key]
        if args or kwargs:
            raise TypeError(
                f"PSANet takes {', '.join(config)} and trainable, got "
                + ", ".join([*(f"{name!r} too" for name in kwargs), *(f"{len(args)} more" for _ in args[:1])])
            )
        config = checked_arguments(config)
        trainable = checked_bool("trainable", trainable)
        dtype = config["dtype"]
        wide_dtype = "float64" if dtype == "float64" else "float32"
        build = ConvolutionBuilder(dtype, config["synchronized_batch_norm"])
        images = keras.Input(config["input_shape"], dtype=wide_dtype, name="images")
        aux, features, aux_grid, grid = _features(images, build, config, wide_dtype)
        # From here on it is what the configuration keeps: a name or a graph, which holds no layers.
        config["backbone"] = serialized_backbone(config["backbone"])
        if config["use_psa"]:
            features = _attention(config)(features)
        outputs = _head(features, images, build, 8, "head", "logits", config, grid, wide_dtype)
        if config["aux_head"]:
            aux_logits = _head(aux, images, build, 4, "aux", "aux_logits", config, aux_grid, wide_dtype)
            outputs = {"logits": outputs, "aux_logits": aux_logits}
        super().__init__(inputs=images, outputs=outputs, name=config["name"])
        self._arguments = config
        self._description = None
        self._blockwise_call = None
        if not trainable:
            self.trainable = False

    @property
    def variant(self) -> str:
        return self._arguments["variant"]

    @property
    def has_backbone(self) -> bool:
        """Whether its features come from a backbone that was given, as the layer "backbone"; else the ResNet's."""
        return self._arguments["backbone"] is not None

    @property
    def has_aux_head(self) -> bool:
        return self._arguments["aux_head"]

    @property
    def num_classes(self) -> int:
        return self._arguments["num_classes"]

    @property
    def description(self) -> dict[str, Any] | None:
        """What is known about the trained network besides its weights, for JSON; see `psanet_tf.weights.description`.

        `.keras` files carry it along, and `from_config` takes it over.
        """
        return None if self._description is None else json.loads(self._description)

    @description.setter
    def description(self, values: dict[str, Any] | None) -> None:
        # As text: Keras would wrap dicts and lists to look for layers in them.
        self._description = None if values is None else json.dumps(values)

    @property
    def rematerialize(self) -> bool:
        """Whether training keeps what enters each residual block only, and computes the rest again for the gradient.

        It takes less memory and about a quarter more time, with the same results. To be set before `compile`; not kept
        in files, since it is no matter of what the network computes.
        """
        return self._blockwise_call is not None

    @rematerialize.setter
    def rematerialize(self, value: bool) -> None:
        if checked_bool("rematerialize", value) and self.has_backbone:
            raise ValueError(
                f"{self.name!r} cannot compute its blocks again: where they begin and end is known of the ResNet alone "
                "that stands without a backbone; leave rematerialize False"
            )
        self._blockwise_call = BlockwiseCall(self) if value else None

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None
    ) -> dict[str, tf.Tensor] | tf.Tensor:
        if training and self.rematerialize:
            return self._blockwise_call(inputs, training)
        return super().call(inputs, training=training, mask=mask)

    def inference(self) -> keras.Model:
        """A `keras.Model` images [N, H, W, C] -> logits [N, H, W, K], with this model's weights, not copies."""
        return keras.Model(self.inputs[0], self.get_layer("logits").output, name=f"{self.name}_inference")

    def feature_size(self, input_size: tuple[int, int] | None = None) -> tuple[int, int]:
        """(rows, columns) of the features that the attention module and the main head work on.

        Args:
            input_size: (H, W) of the images; default: the network's own.
        """
        height, width = self.input_shape[1:3] if input_size is None else input_size
        if not self.has_backbone:
            return feature_size((height, width), self._arguments["output_stride"])
        images = keras.KerasTensor((1, height, width, self.input_shape[3]), self.inputs[0].dtype)
        *_, features = keras.tree.flatten(self.get_layer("backbone").compute_output_spec(images))
        return tuple(features.shape[1:3])

    def get_config(self) -> dict[str, Any]:
        flags = sublayer_flags(self)
        config = {**self._arguments, "trainable": self.trainable}
        config |= {"layers_trainable": flags} if flags else {}
        return config | ({} if self._description is None else {"description": self.description})

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "PSANet":
        config = dict(config)
        flags, description = config.pop("layers_trainable", {}), config.pop("description", None)
        model = cls(**config)
        model.description = description
        set_sublayer_flags(model, flags)
        return model

    def sublayers(self) -> dict[str, keras.layers.Layer]:
        """{name: layer} of the model's layers."""
        return {layer.name: layer for layer in self.layers}


def _features(images, build, config, wide_dtype):
    """Features for the auxiliary and the main head, and where they lie in the images: a grid, or None for all over."""
    if config["backbone"] is None:
        stages = resnet_stages(
            images,
            build,
            config["blocks"] or BLOCKS[config["depth"]],
            config["width"],
            stem=config["stem"],
            stride_in_1x1=config["stride_in_1x1"],
            contract_dilation=config["variant"] == "mmseg",
            output_stride=config["output_stride"],
        )
        stride = config["output_stride"]
        grids = [None, None] if stride == 8 else [(min(stride, 16), 0, 0), (stride, 0, 0)]
        return stages[-2], stages[-1], *grids
    names = ("backbone", "input_shape", "output_stride", "feature_layers", "aux_head")
    backbone = build_backbone(*(config[name] for name in names), synchronized=build.synchronized, dtype=config["dtype"])
    kind = config["backbone_preprocessing"]
    prepared = BackbonePreprocessing(kind, dtype=wide_dtype, name="preprocessing")(images)
    outputs = backbone.model(prepared)
    *aux, features = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    grids = [grid and (grid.stride, *grid.offset) for grid in (backbone.aux_grid, backbone.grid)]
    return aux[0] if aux else None, features, *grids


def _head(features, images, build, width_factor, prefix, output_name, config, grid, wide_dtype):
    """3x3 convolution, dropout, classifier and resize to the images' size."""
    x = build.conv_norm_relu(features, width_factor * config["width"], 3, prefix, initializer=head_kernel)
    x = SpatialDropout2D(config["dropout"], data_format="channels_last", dtype=build.dtype, name=f"{prefix}_dropout")(x)
    x = build.conv(x, config["num_classes"], 1, f"{prefix}_classifier", use_bias=True, initializer=head_kernel)
    # Logits leave in full precision: the softmax of the loss needs it.
    sizes = {"zoom_factor": config["zoom_factor"], "align_corners": config["align_corners"], "grid": grid}
    return Logits(config, **sizes, dtype=wide_dtype, name=output_name)([x, images])


def _attention(config):
    names = (
        "psa_type",
        "compact",
        "shrink_factor",
        "mask_size",
        "normalization_factor",
        "psa_softmax",
        "implementation",
        "variant",
        "align_corners",
        "block_size",
    )
    return PSALayer(
        mid_channels=8 * config["width"] if config["mid_channels"] is None else config["mid_channels"],
        synchronized_batch_norm=config["synchronized_batch_norm"],
        dtype=config["dtype"],
        name="psa",
        **{name: config[name] for name in names},
    )
