"""Functions that are written down for others: traced with stock ops, or refused with the reason."""

import sys

import tensorflow as tf

# Packages that trace functions in order to write them to a file, and what of them does.
_EXPORTERS = (
    "keras.src.export",  # model.export in every format, ExportArchive
    "keras.src.saving.legacy.saved_model",  # model.save of Keras 2 into a SavedModel
    "tf_keras.src.export",  # the same of legacy Keras
    "tf_keras.src.saving.legacy.saved_model",
    "tensorflow.python.saved_model",  # tf.saved_model.save
    "tensorflow.lite.python",  # TFLiteConverter.from_keras_model
)

_UNSAVEABLE = (
    "It was traced before the export and holds the compiled op PsaMask, which no program without psanet_tf's library "
    "can load. Export the tf.function in place of what its get_concrete_function returned, or trace it within "
    'psanet_tf.ops.psa_mask_implementation("stock"), or within psa_mask_implementation("custom") if whatever will '
    "read the file has the op."
)


def traced_for_export() -> bool:
    """Whether the caller runs because something is being exported.

    Neither Keras nor TensorFlow tells the function that it traces what for (TensorFlow's save context begins after
    Keras has traced), so the stack of calls is asked. Only the time of tracing is spent on it.
    """
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        if any(module == exporter or module.startswith(f"{exporter}.") for exporter in _EXPORTERS):
            return True
        frame = frame.f_back
    return False


def forbid_export() -> None:
    """Makes saving the function that is being traced, if any, an error that says what to do."""
    graph = tf.compat.v1.get_default_graph()
    while hasattr(graph, "mark_as_unsaveable"):  # the bodies of loops and branches, and what they are part of
        graph.mark_as_unsaveable(_UNSAVEABLE)
        graph = graph.outer_graph
