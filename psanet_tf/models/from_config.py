"""From a checked configuration to the network it describes."""

from psanet_tf.models.psanet import PSANet


def build_model(config, num_classes, **overrides):
    """The `PSANet` of a configuration, with the training crop as its input size.

    Args:
        config: `psanet_tf.config.Config`.
        num_classes: number of classes of the dataset.
        **overrides: arguments of `PSANet` that take precedence, e.g. ``dtype="mixed_bfloat16"``.
    """
    arguments = {
        "num_classes": num_classes,
        "input_shape": (*config.data.crop_size, 3),
        "synchronized_batch_norm": config.train.sync_batch_norm,
        **config.model.model_dump(),
        **overrides,
    }
    return PSANet(**arguments)
