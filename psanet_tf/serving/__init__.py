"""A server for trying exported models, and a client; each imports what it needs only when used."""

import importlib
from typing import Any

_LAZY = {
    "Client": "psanet_tf.serving.client.client",
    "Server": "psanet_tf.serving.server.server",
    "ServingError": "psanet_tf.runtimes.errors",
}

__all__ = ["Client", "Server", "ServingError"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'psanet_tf.serving' has no attribute {name!r}")
