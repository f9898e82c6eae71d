"""Dilated ResNet backbone (He et al. 2016; dilation as in the paper, section 4.1)."""

import re
from collections.abc import Sequence

from psanet_tf.keras_api import keras
from psanet_tf.models.convolution import ConvolutionBuilder

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
EXPANSION = 4
STEMS = ("deep", "classic", "v1c")
# Output stride -> stride and dilation of the 3x3 convolutions of layer1 .. layer4.
STAGES = {
    8: ((1, 1), (2, 1), (1, 2), (1, 4)),
    16: ((1, 1), (2, 1), (2, 1), (1, 2)),
    32: ((1, 1), (2, 1), (2, 1), (2, 1)),
}


def resnet_stages(
    x: "keras.KerasTensor",
    build: ConvolutionBuilder,
    blocks: Sequence[int],
    width: int,
    stem: str = "deep",
    stride_in_1x1: bool = False,
    contract_dilation: bool = False,
    output_stride: int = 8,
) -> list["keras.KerasTensor"]:
    """Adds the backbone to a functional model.

    Args:
        x: [N, H, W, C] normalized images.
        build: `ConvolutionBuilder`.
        blocks: bottleneck blocks of the four stages, e.g. (3, 4, 6, 3).
        width: channels of the stem and of the bottlenecks of the first stage; 64 in the paper.
        stem: "deep", three 3x3 convolutions to `width`, `width` and twice `width` channels; "v1c", three to half of
            `width`, the same, and `width` (MMSegmentation's ResNetV1c); or "classic", one 7x7 (He et al. 2016,
            torchvision, keras.applications).
        stride_in_1x1: a strided block strides in its first 1x1 convolution (He et al. 2016,
            keras.applications), not in the 3x3.
        contract_dilation: the first block of a dilated stage has half of its dilation, as in MMSegmentation.
        output_stride: 8, 16 or 32; strides beyond it become dilations.

    Returns:
        Outputs of layer1 .. layer4: strides 4, 8, 16 and 32, but no more than `output_stride`; 4, 8, 16 and 32 times
        `width` channels.
    """
    x = _stem(x, build, width, stem)
    stages = []
    for number, (count, (stride, dilation)) in enumerate(zip(blocks, STAGES[output_stride], strict=True), start=1):
        planes = width * 2 ** (number - 1)
        for block in range(count):
            strides = _split_stride(stride if block == 0 else 1, stride_in_1x1)
            contracted = contract_dilation and block == 0 and dilation > 1
            dilation_here = dilation // 2 if contracted else dilation
            x = _bottleneck(x, build, planes, f"layer{number}_{block}", strides, dilation_here)
        stages.append(x)
    return stages


def block_of(layer_name: str) -> str | None:
    """The residual block that a layer of `resnet_stages` belongs to, e.g. "layer3_5"; None outside of the blocks."""
    found = re.match(r"(layer\d+_\d+)_", layer_name)
    return found and found[1]


def is_end_of_block(layer_name: str) -> bool:
    """Whether the layer's output is a residual block's."""
    return block_of(layer_name) is not None and layer_name.endswith("_out")


def _stem(x, build, width, kind):
    if kind == "classic":
        x = build.conv_norm_relu(x, width, 7, "stem", 1, strides=2)
    else:
        narrow = width // 2 if kind == "v1c" else width
        x = build.conv_norm_relu(x, narrow, 3, "stem", 1, strides=2)
        x = build.conv_norm_relu(x, narrow, 3, "stem", 2)
        x = build.conv_norm_relu(x, 2 * narrow, 3, "stem", 3)
    # Zeros do for the padding of a maximum over what a ReLU has left non-negative.
    x = keras.layers.ZeroPadding2D(1, data_format="channels_last", dtype=build.dtype, name="stem_pool_pad")(x)
    return keras.layers.MaxPooling2D(3, strides=2, data_format="channels_last", dtype=build.dtype, name="stem_pool")(x)


def _split_stride(stride, in_1x1):
    """Strides of a bottleneck's first 1x1 and of its 3x3 convolution."""
    return (stride, 1) if in_1x1 else (1, stride)


def _bottleneck(x, build, planes, name, strides, dilation):
    shortcut = x
    stride = strides[0] * strides[1]
    if stride > 1 or x.shape[-1] != planes * EXPANSION:
        shortcut = build.conv(x, planes * EXPANSION, 1, f"{name}_shortcut_conv", strides=stride)
        shortcut = build.norm(shortcut, f"{name}_shortcut_bn")
    x = build.conv_norm_relu(x, planes, 1, name, 1, strides=strides[0])
    x = build.conv_norm_relu(x, planes, 3, name, 2, strides=strides[1], dilation=dilation)
    x = build.conv(x, planes * EXPANSION, 1, f"{name}_conv3")
    x = build.norm(x, f"{name}_bn3")
    x = keras.layers.Add(dtype=build.dtype, name=f"{name}_add")([x, shortcut])
    return build.relu(x, f"{name}_out")
