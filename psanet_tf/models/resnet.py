"""Dilated ResNet backbone at output stride 8 (He et al. 2016; dilation as in the paper, section 4.1)."""

from psanet_tf.keras_api import keras

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
EXPANSION = 4
# Stride and dilation of the 3x3 convolutions of layer1 .. layer4.
_STAGES = ((1, 1), (2, 1), (1, 2), (1, 4))


def resnet_stages(x, build, blocks, width):
    """Adds the backbone to a functional model.

    Args:
        x: [N, H, W, 3] normalized images.
        build: `ConvolutionBuilder`.
        blocks: bottleneck blocks of the four stages, e.g. (3, 4, 6, 3).
        width: channels of the stem and of the bottlenecks of the first stage; 64 in the paper.

    Returns:
        Outputs of layer1 .. layer4: strides 4, 8, 8, 8; 4, 8, 16 and 32 times `width` channels.
    """
    x = _deep_stem(x, build, width)
    stages = []
    for number, (count, (stride, dilation)) in enumerate(zip(blocks, _STAGES, strict=True), start=1):
        planes = width * 2 ** (number - 1)
        for block in range(count):
            x = _bottleneck(x, build, planes, f"layer{number}_{block}", stride if block == 0 else 1, dilation)
        stages.append(x)
    return stages


def _deep_stem(x, build, width):
    x = build.conv_norm_relu(x, width, 3, "stem", 1, strides=2)
    x = build.conv_norm_relu(x, width, 3, "stem", 2)
    x = build.conv_norm_relu(x, 2 * width, 3, "stem", 3)
    # Zeros do for the padding of a maximum over what a ReLU has left non-negative.
    x = keras.layers.ZeroPadding2D(1, dtype=build.dtype, name="stem_pool_pad")(x)
    return keras.layers.MaxPooling2D(3, strides=2, dtype=build.dtype, name="stem_pool")(x)


def _bottleneck(x, build, planes, name, stride, dilation):
    shortcut = x
    if stride > 1 or x.shape[-1] != planes * EXPANSION:
        shortcut = build.conv(x, planes * EXPANSION, 1, f"{name}_shortcut_conv", strides=stride)
        shortcut = build.norm(shortcut, f"{name}_shortcut_bn")
    x = build.conv_norm_relu(x, planes, 1, name, 1)
    x = build.conv_norm_relu(x, planes, 3, name, 2, strides=stride, dilation=dilation)
    x = build.conv(x, planes * EXPANSION, 1, f"{name}_conv3")
    x = build.norm(x, f"{name}_bn3")
    x = keras.layers.Add(dtype=build.dtype, name=f"{name}_add")([x, shortcut])
    return build.relu(x, f"{name}_out")
