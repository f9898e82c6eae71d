"""From a trained network to files that other programs run."""

import importlib
from typing import Any

_LAZY = {
    "Export": "psanet_tf.export.saved_model",
    "export_file": "psanet_tf.export.model_file",
    "export_saved_model": "psanet_tf.export.saved_model",
}

__all__ = ["Export", "export_file", "export_saved_model"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'psanet_tf.export' has no attribute {name!r}")
