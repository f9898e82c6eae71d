"""The one place that chooses Keras; every other module imports it from here.

``keras`` is Keras 3, or legacy Keras (the ``tf_keras`` package) when the environment variable
``TF_USE_LEGACY_KERAS`` is ``1`` or ``true``, the same rule that TensorFlow itself follows.
"""

import os

LEGACY_KERAS = os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")

if LEGACY_KERAS:
    import tf_keras as keras
else:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "psanet_tf runs on TensorFlow, but Keras is set to the backend "
            f"{keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow before Keras is imported"
        )

__all__ = ["LEGACY_KERAS", "keras"]
