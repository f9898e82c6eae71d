"""Spares `fit` what Keras does before it: looking for what is not built yet."""

from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet


def build_for_fit(model: PSANet) -> None:
    """Builds the losses and metrics of a compiled network, so that `fit` and `evaluate` need not look at data first.

    Under a `tf.distribute` strategy Keras starts the input pipeline before every `fit` and every validation, reads one
    batch and throws it away, and the first time calls the network once more to learn the shapes of its outputs. Here
    they are known. A Keras without the methods that this takes, which have no public names, looks for itself.

    Args:
        model: compiled `PSANet`, its optimizer built.
    """
    if not all(hasattr(model, name) for name in ("_compile_loss", "_compile_metrics", "_maybe_symbolic_build")):
        return
    outputs = model.output
    labels = keras.tree.map_structure(lambda logits: keras.KerasTensor(logits.shape[:-1], "uint8"), outputs)
    model._compile_loss.build(labels, outputs)
    if model._compile_metrics is not None:
        model._compile_metrics.build(labels, outputs)
    model._maybe_symbolic_build = _nothing_to_build


def _nothing_to_build(iterator: object = None, data_batch: object = None) -> None:
    pass
