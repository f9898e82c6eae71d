"""Training with `model.fit`, by the paper's recipe."""

from psanet_tf.keras_api import needs_keras_3

needs_keras_3("training")
