"""Training with `model.fit`, by the paper's recipe."""

from psanet_tf.keras_api import needs_keras_3

needs_keras_3("training")

__all__ = ["TrainingResult", "train"]


def __getattr__(name):
    # Imported when first used: most of what is in here does without the trainer.
    if name not in __all__:
        raise AttributeError(f"module 'psanet_tf.training' has no attribute {name!r}")
    from psanet_tf.training import trainer

    return getattr(trainer, name)
