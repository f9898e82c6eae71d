"""Datasets on disk, augmentation, and the input pipeline."""

import importlib

_MODULE_OF = {
    "MEAN": "normalization",
    "STD": "normalization",
    "normalize": "normalization",
    "DatasetInfo": "catalog",
    "dataset_info": "catalog",
    "info_of": "catalog",
    "Example": "readers",
    "list_examples": "readers",
    "read_example": "readers",
    "read_image": "readers",
    "read_label": "readers",
    "write_scenes": "scenes",
}

__all__ = list(_MODULE_OF)


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'psanet_tf.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"psanet_tf.data.{_MODULE_OF[name]}"), name)


def __dir__():
    return sorted([*globals(), *_MODULE_OF])
