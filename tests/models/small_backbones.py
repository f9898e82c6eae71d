"""Small members of keras.applications' families, with weights in which every layer matters."""

import functools
from typing import Any

import numpy as np
from keras.src.applications import convnext, densenet, efficientnet_v2, mobilenet_v3, resnet

from psanet_tf.keras_api import keras

_BLOCKS = [
    {"kernel_size": 3, "num_repeat": repeats, "input_filters": entering, "output_filters": leaving, "expand_ratio": 2}
    | {"se_ratio": ratio, "strides": stride, "conv_type": kind}
    for repeats, entering, leaving, ratio, stride, kind in (
        (1, 8, 8, 0, 1, 1),
        (1, 8, 8, 0, 2, 1),
        (1, 8, 16, 0, 2, 1),
        (2, 16, 16, 0.25, 2, 0),
        (2, 16, 24, 0.25, 2, 0),
    )
]


def _resnet(version):
    stack = resnet.stack_residual_blocks_v1 if version == 1 else resnet.stack_residual_blocks_v2

    def build(**arguments):
        def stages(x):
            for number, stride in enumerate((1, 2, 2, 2) if version == 1 else (2, 2, 2, 1), start=2):
                x = stack(x, 4, 2, stride1=stride, name=f"conv{number}")
            return x

        return resnet.ResNet(stages, version == 2, True, name=f"resnet50{'v2' * (version == 2)}", **arguments)

    return build


def _efficientnet(name="efficientnetv2-b0", **arguments):
    return efficientnet_v2.EfficientNetV2(1.0, 1.0, 64, blocks_args=_BLOCKS, name=name, **arguments)


def small_convnext(**arguments):
    return convnext.ConvNeXt((1, 1, 2, 1), (8, 12, 16, 20), 0.1, name="convnext_tiny", **arguments)


def _mobilenet_v3(**arguments):
    block = mobilenet_v3._inverted_res_block

    def stages(x, kernel, activation, se_ratio):
        x = block(x, 1, 8, 3, 2, se_ratio, mobilenet_v3.relu, 0)
        x = block(x, 2, 8, 3, 2, None, mobilenet_v3.relu, 1)
        x = block(x, 2, 16, kernel, 2, se_ratio, activation, 2)
        x = block(x, 2, 16, kernel, 1, se_ratio, activation, 3)
        return block(x, 2, 24, kernel, 2, se_ratio, activation, 4)

    return mobilenet_v3.MobileNetV3(stages, 64, minimalistic=False, name="MobileNetV3Small", **arguments)


# Their number of pixels is odd at every stride for 32n + 1, and 32n + 7 in Xception, which begins without borders.
SIZES = {"Xception": 71}
FAMILIES = {
    "ResNet": _resnet(1),
    "ResNetV2": _resnet(2),
    "EfficientNetV2": _efficientnet,
    "ConvNeXt": small_convnext,
    "MobileNetV3": _mobilenet_v3,
    "DenseNet": lambda **arguments: densenet.DenseNet([1, 2, 2, 2], name="densenet121", **arguments),
    "Xception": lambda **arguments: keras.applications.Xception(**arguments),
}


WITH_SWITCH = ("EfficientNetV2", "ConvNeXt", "MobileNetV3")


def small_backbone(family: str, include_preprocessing: bool = False, **arguments: Any) -> keras.Model:
    """A network of a family for square images whose size is odd at every stride, its weights random.

    Args:
        family: key of `FAMILIES`.
        include_preprocessing: whether the images are prepared inside, in the families that have that choice.
        **arguments: of the family's function.
    """
    size = SIZES.get(family, 65)
    switch = {"include_preprocessing": include_preprocessing} if family in WITH_SWITCH else {}
    model = FAMILIES[family](include_top=False, weights=None, input_shape=(size, size, 3), **switch | arguments)
    set_random_weights(model)
    return model


@functools.cache
def shared_backbone(family: str) -> keras.Model:
    """`small_backbone` for all tests that leave it as it is."""
    return small_backbone(family)


def set_random_weights(model: keras.Model, seed: int = 0) -> None:
    """Weights that keep the scale of what passes through, and scales, shifts and statistics that are not usual ones."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) > 1:
            inputs = np.prod(weight.shape[:-1] if weight.shape[-1] > 1 else weight.shape[:2])
            value = rng.standard_normal(weight.shape, "float32") * np.float32((2 / inputs) ** 0.5)
        elif weight.name in ("bias", "beta", "moving_mean"):
            value = rng.normal(0, 0.1, weight.shape)
        else:
            value = rng.uniform(0.5, 1.5, weight.shape)
        weight.assign(value)
