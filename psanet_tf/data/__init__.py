"""Datasets on disk, augmentation, and the input pipeline."""

import importlib

# Imported when first used: only some of them need TensorFlow.
_MODULE_OF = {
    "ImageFormat": "image_format",
    "MEAN": "normalization",
    "STD": "normalization",
    "normalize": "normalization",
    "DatasetInfo": "catalog",
    "dataset_info": "catalog",
    "info_of": "catalog",
    "Fingerprint": "fingerprint",
    "data_fingerprint": "fingerprint",
    "describe_difference": "fingerprint",
    "Example": "readers",
    "list_examples": "readers",
    "read_example": "readers",
    "read_image": "readers",
    "read_label": "readers",
    "AugmentationParameters": "augmentation",
    "apply_augmentation": "augmentation",
    "draw_augmentation": "augmentation",
    "evaluation_dataset": "pipeline",
    "steps_per_epoch": "pipeline",
    "training_dataset": "pipeline",
    "UnreadableExamples": "unreadable",
    "readable_pipeline_errors": "unreadable",
    "write_scenes": "scene_files",
}

__all__ = list(_MODULE_OF)


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'psanet_tf.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"psanet_tf.data.{_MODULE_OF[name]}"), name)


def __dir__():
    return sorted([*globals(), *_MODULE_OF])
