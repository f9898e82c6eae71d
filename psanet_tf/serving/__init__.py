"""Exported models, a server for trying them, and a client; each part imports what it needs only when used."""

import importlib
from typing import Any

_LAZY = {
    "Client": "psanet_tf.serving.client",
    "Server": "psanet_tf.serving.server",
    "ServingError": "psanet_tf.serving.errors",
    "export_saved_model": "psanet_tf.serving.export",
}

__all__ = ["Client", "Server", "ServingError", "export_saved_model"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'psanet_tf.serving' has no attribute {name!r}")
