"""`PSANet`: dilated ResNet, point-wise spatial attention, main and auxiliary head."""

from psanet_tf.keras_api import keras
from psanet_tf.layers import PSALayer, ResizeLike
from psanet_tf.layers.initializers import head_kernel
from psanet_tf.models.convolution import ConvolutionBuilder
from psanet_tf.models.resnet import BLOCKS, STEMS, resnet_stages

OUTPUT_STRIDE = 8


@keras.saving.register_keras_serializable("psanet_tf")
class PSANet(keras.Model):
    """Point-wise Spatial Attention Network for Scene Parsing (Zhao et al., ECCV 2018), a functional model.

    Args:
        num_classes: number of classes K.
        depth: 50, 101 or 152, the ResNet's.
        input_shape: (H, W, 3) with H and W of the form 8n + 1; (None, None, 3) for any size, which needs
            `mask_size` and an over-complete mask.
        dropout: rate of the spatial dropout before both classifiers.
        use_psa: False leaves the attention module out: the dilated FCN baseline of the paper's ablation.
        psa_type, compact, shrink_factor, mask_size, mid_channels, normalization_factor, psa_softmax: see
            `PSALayer`; `mid_channels` defaults to 8 * `width`, the paper's 512.
        blocks: bottleneck blocks per stage, four integers; takes the place of `depth` for small networks.
        width: channels of the stem and of the first stage's bottlenecks, 64 in the paper; the heads scale
            with it.
        stem: "deep", the original's three 3x3 convolutions, or "classic", one 7x7 convolution, for the weights of
            torchvision and keras.applications.
        stride_in_1x1: strided blocks stride in their first 1x1 convolution, as in keras.applications, not in the
            3x3.
        zoom_factor: 8 gives logits at input resolution; 1, 2 and 4 give (size - 1) / 8 * zoom_factor + 1.
        synchronized_batch_norm: batch statistics over all replicas of the `tf.distribute` strategy.
        dtype: name of the dtype policy, e.g. ``"mixed_bfloat16"``; default: Keras's global policy.
        name: name of the model.

    Call arguments:
        inputs: [N, H, W, 3] RGB images, normalized (`psanet_tf.data.normalize`).
        training: as in every Keras model.

    Returns:
        ``{"logits": [N, H, W, K], "aux_logits": [N, H, W, K]}``, float32 (float64 under a float64 policy).

    Raises:
        ValueError: an argument out of its range; the message names it.

    Example:
        >>> model = PSANet(num_classes=150, depth=50)
        >>> model.inference()(tf.zeros([1, 465, 465, 3])).shape
        TensorShape([1, 465, 465, 150])
    """

    def __init__(
        self,
        num_classes,
        depth=50,
        input_shape=(465, 465, 3),
        dropout=0.1,
        use_psa=True,
        psa_type="bi-direction",
        compact=False,
        shrink_factor=2,
        mask_size=None,
        mid_channels=None,
        normalization_factor=1.0,
        psa_softmax=True,
        blocks=None,
        width=64,
        stem="deep",
        stride_in_1x1=False,
        zoom_factor=8,
        synchronized_batch_norm=False,
        dtype=None,
        name="psanet",
    ):
        # Legacy Keras wants no attribute set before the functional constructor has run.
        config = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        # Files bring tuples back as lists.
        config |= {key: tuple(value) for key, value in config.items() if isinstance(value, list)}
        _check(config)
        config["dtype"] = dtype = dtype or keras.mixed_precision.global_policy().name
        wide_dtype = "float64" if dtype == "float64" else "float32"
        build = ConvolutionBuilder(dtype, synchronized_batch_norm)
        images = keras.Input(input_shape, dtype=wide_dtype, name="images")
        stages = resnet_stages(images, build, blocks or BLOCKS[depth], width, stem, stride_in_1x1)
        features = stages[-1]
        if use_psa:
            features = PSALayer(
                mid_channels=mid_channels or 8 * width,
                psa_type=psa_type,
                compact=compact,
                shrink_factor=shrink_factor,
                mask_size=mask_size,
                normalization_factor=normalization_factor,
                psa_softmax=psa_softmax,
                synchronized_batch_norm=synchronized_batch_norm,
                dtype=dtype,
                name="psa",
            )(features)
        outputs = {
            "logits": _head(features, images, build, 8 * width, "head", "logits", config, wide_dtype),
            "aux_logits": _head(stages[-2], images, build, 4 * width, "aux", "aux_logits", config, wide_dtype),
        }
        super().__init__(inputs=images, outputs=outputs, name=name)
        self._arguments = config

    @property
    def num_classes(self):
        return self._arguments["num_classes"]

    def inference(self):
        """A `keras.Model` images [N, H, W, 3] -> logits [N, H, W, K], with this model's weights, not copies."""
        return keras.Model(self.inputs[0], self.get_layer("logits").output, name=f"{self.name}_inference")

    def get_config(self):
        return dict(self._arguments)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def _head(features, images, build, channels, prefix, output_name, config, wide_dtype):
    """3x3 convolution, dropout, classifier and resize to the images' size."""
    x = build.conv_norm_relu(features, channels, 3, prefix, initializer=head_kernel)
    x = keras.layers.SpatialDropout2D(config["dropout"], dtype=build.dtype, name=f"{prefix}_dropout")(x)
    x = build.conv(x, config["num_classes"], 1, f"{prefix}_classifier", use_bias=True, initializer=head_kernel)
    # Logits leave in full precision: the softmax of the loss needs it.
    return ResizeLike(config["zoom_factor"], dtype=wide_dtype, name=output_name)([x, images])


def _check(config):
    num_classes, depth, blocks, width = (config[key] for key in ("num_classes", "depth", "blocks", "width"))
    if not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes must be an integer of at least 2, got {num_classes!r}")
    if blocks is None and depth not in BLOCKS:
        raise ValueError(f"depth must be one of {', '.join(map(str, BLOCKS))}, got {depth!r}; or give blocks")
    if blocks is not None and (len(blocks) != 4 or min(blocks) < 1):
        raise ValueError(f"blocks must be four positive integers, one per stage, got {blocks!r}")
    if config["stem"] not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(map(repr, STEMS))}, got {config['stem']!r}")
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"width must be a positive integer, got {width!r}")
    if not 0 <= config["dropout"] < 1:
        raise ValueError(f"dropout must be in [0, 1), got {config['dropout']!r}")
    input_shape = tuple(config["input_shape"])
    if len(input_shape) != 3 or input_shape[2] != 3:
        raise ValueError(f"input_shape must be (H, W, 3), got {input_shape}")
    for length in input_shape[:2]:
        if length is not None and (length < 9 or (length - 1) % OUTPUT_STRIDE):
            nearest = max(9, OUTPUT_STRIDE * round((length - 1) / OUTPUT_STRIDE) + 1)
            raise ValueError(
                f"input_shape must have rows and columns of the form 8n + 1, at least 9, got {length}; "
                f"the nearest is {nearest}"
            )
