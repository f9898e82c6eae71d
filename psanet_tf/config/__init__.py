"""Typed, validated configurations: YAML files with overrides."""

from psanet_tf.config.data import AugmentationSection, ColorJitterSection, DataSection
from psanet_tf.config.evaluate import EvaluateSection
from psanet_tf.config.loading import Config, dump_config, flat_config, load_config, override_evaluate
from psanet_tf.config.model import ModelSection
from psanet_tf.config.train import EarlyStoppingSection, TrainSection

__all__ = [
    "AugmentationSection",
    "ColorJitterSection",
    "Config",
    "DataSection",
    "EarlyStoppingSection",
    "EvaluateSection",
    "ModelSection",
    "TrainSection",
    "dump_config",
    "flat_config",
    "load_config",
    "override_evaluate",
]
