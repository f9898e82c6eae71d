"""The backbones that a name stands for, and how each wants its images, for whoever needs it without TensorFlow."""

import dataclasses
import re

PREPROCESSING = {
    "caffe": "blue-green-red, the mean of ImageNet subtracted",
    "tf": "-1 to 1",
    "tf128": "0 to 255, divided by 128, less 1",
    "torch": "ImageNet's mean subtracted, divided by its deviation",
    "unit": "0 to 1",
    "raw": "0 to 255, for backbones whose first layers do the rest",
}
"""What a backbone takes for an image, by keras.applications' names where it has one."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Backbones of keras.applications with the same preprocessing.

    Attributes:
        names: of the functions in `keras.applications`.
        preprocessing: key of `PREPROCESSING`, of images for the backbone without preprocessing layers of its own.
        has_switch: whether `include_preprocessing` tells if it has such layers.
        landmark: a layer that each has, apart from the model's own name in front of it.
    """

    names: tuple[str, ...]
    preprocessing: str
    has_switch: bool
    landmark: str


FAMILIES = (
    Family(("ResNet50", "ResNet101", "ResNet152"), "caffe", False, "conv2_block1_1_bn"),
    Family(("ResNet50V2", "ResNet101V2", "ResNet152V2"), "tf", False, "conv2_block1_preact_bn"),
    Family(tuple(f"EfficientNetV2B{number}" for number in range(4)), "torch", True, "block1a_project_conv"),
    Family(tuple(f"EfficientNetV2{size}" for size in "SML"), "tf128", True, "block1a_project_conv"),
    Family(tuple(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")), "torch", True, "_stem"),
    Family(("MobileNetV2",), "tf", False, "expanded_conv_project"),
    Family(("MobileNetV3Small", "MobileNetV3Large"), "tf", True, "expanded_conv_project"),
    Family(("DenseNet121", "DenseNet169", "DenseNet201"), "torch", False, "conv2_block1_0_bn"),
    Family(("Xception",), "tf", False, "block1_conv1"),
)

BACKBONES = {name: family for family in FAMILIES for name in family.names}
"""{name: Family} of every backbone that goes by its name alone."""


def family_of(model_name: str, layer_names: list[str]) -> Family | None:
    """The family that a network of keras.applications is of; None for any other network.

    Args:
        model_name: the network's name, as keras.applications gives it, e.g. "efficientnetv2-b0".
        layer_names: names of its layers.
    """

    def plain(name):
        return re.sub("[^a-z0-9]", "", name.lower())

    # "mobilenetv2_1.00_224" has its width and size behind the name, and "resnet50v2" is no "resnet50".
    fitting = [name for name in BACKBONES if re.fullmatch(rf"{plain(name)}(\d+)?", plain(model_name))]
    if not fitting:
        return None
    family = BACKBONES[max(fitting, key=len)]
    found = {name.removeprefix(model_name) for name in layer_names}
    return family if family.landmark in found else None
