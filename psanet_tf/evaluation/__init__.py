"""Scores of a dataset, reports, comparisons, submissions."""

from psanet_tf.keras_api import needs_keras_3

needs_keras_3("evaluation")
