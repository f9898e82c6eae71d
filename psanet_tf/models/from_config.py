"""From a checked configuration to the network it describes."""

from typing import TYPE_CHECKING, Any

from psanet_tf.models.psanet import PSANet

if TYPE_CHECKING:
    from psanet_tf.config import Config


def build_model(config: "Config", num_classes: int, **overrides: Any) -> PSANet:
    """The `PSANet` of a configuration, with the training crop as its input size.

    Args:
        config: `psanet_tf.config.Config`.
        num_classes: number of classes of the dataset.
        **overrides: arguments of `PSANet` that take precedence, e.g. ``dtype="mixed_bfloat16"``.
    """
    arguments = {
        "num_classes": num_classes,
        "input_shape": (*config.data.crop_size, config.data.channels),
        "synchronized_batch_norm": config.train.sync_batch_norm,
        **config.model.model_dump(exclude={"first_convolution", "backbone_weights"}),  # of the initial weights
        **overrides,
    }
    if config.model.backbone is not None:
        arguments["stem"] = None  # a default of the ResNet's
    return PSANet(**arguments)
