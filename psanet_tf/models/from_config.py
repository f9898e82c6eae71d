"""From a checked configuration to the network it describes."""

from typing import TYPE_CHECKING, Any

from psanet_tf.keras_api import keras
from psanet_tf.models.backbones import checked_backbone, serialized_backbone
from psanet_tf.models.psanet import PSANet

if TYPE_CHECKING:
    from psanet_tf.config import Config


def build_model(config: "Config", num_classes: int, **overrides: Any) -> PSANet:
    """The `PSANet` of a configuration, with the training crop as its input size.

    Args:
        config: `psanet_tf.config.Config`.
        num_classes: number of classes of the dataset.
        **overrides: arguments of `PSANet` that take precedence, e.g. ``dtype="mixed_bfloat16"``.

    Raises:
        ValueError: arguments that do not go together, or a ``model.backbone`` that is a file and cannot be read.
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
        if config.model.backbone.endswith(".keras"):
            arguments["backbone"] = _graph_in(config.model.backbone)
    return PSANet(**arguments)


def _graph_in(path):
    """The graph of the network in a `.keras` file, as `PSANet` takes it."""
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ValueError(f"model.backbone: {path} cannot be read as a Keras model: {error}") from None
    return serialized_backbone(checked_backbone(model, model.dtype_policy.name, model.input_shape[-1]))
