"""The one place that chooses Keras; every other module imports it from here.

``keras`` is what TensorFlow itself takes for Keras: the package of that name, which is Keras 3 beside TensorFlow 2.16
and later and Keras 2 beside TensorFlow 2.15, or ``tf_keras``, legacy Keras, when the environment variable
``TF_USE_LEGACY_KERAS`` is ``1`` or ``true``.
"""

import os

_ASKED_FOR_LEGACY = os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")

if _ASKED_FOR_LEGACY:
    try:
        import tf_keras as keras
    except ModuleNotFoundError as error:
        if error.name != "tf_keras":
            raise
        raise ImportError(
            "TF_USE_LEGACY_KERAS is set, which needs the package tf_keras of TensorFlow's version: "
            "pip install tf_keras, or unset it for the package keras"
        ) from error
else:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "psanet_tf runs on TensorFlow, but Keras is set to the backend "
            f"{keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow before Keras is imported"
        )

# Whether `keras` is Keras 2, as a package of its own or as tf_keras.
LEGACY_KERAS = keras.__version__.startswith("2.")


def needs_keras_3(purpose: str) -> None:
    """Refuses Keras 2 where Keras 3 is needed.

    Args:
        purpose: what needs it, the subject of a sentence.

    Raises:
        ImportError: `keras` is Keras 2; the message says what to do.
    """
    if not LEGACY_KERAS:
        return
    here = f"Keras {keras.__version__}"
    if _ASKED_FOR_LEGACY:
        raise ImportError(f"{purpose} needs Keras 3, and TF_USE_LEGACY_KERAS asks for {here}: unset it")
    raise ImportError(
        f"{purpose} needs Keras 3, which comes with TensorFlow 2.16 and later, and this is {here}: "
        "pip install --upgrade 'tensorflow>=2.16' keras"
    )


def needs_tf_keras(purpose: str) -> None:
    """Refuses every Keras but tf_keras, where another library works with that one.

    Args:
        purpose: what needs it, the subject of a sentence.

    Raises:
        ImportError: `keras` is another one; the message says what to do.
    """
    if keras.__name__.partition(".")[0] != "tf_keras":
        raise ImportError(
            f"{purpose} needs legacy Keras, and this is Keras {keras.__version__}: set the environment variable "
            "TF_USE_LEGACY_KERAS=1 before Python starts"
        )


__all__ = ["LEGACY_KERAS", "keras", "needs_keras_3", "needs_tf_keras"]
