"""What the package's extras bring may be missing; then the error says which extra it is."""

import contextlib
import importlib.metadata
from collections.abc import Iterator


@contextlib.contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Imports within it that fail become an `ImportError` that names the extra and how to install it.

    Args:
        extra: one of pyproject.toml's, e.g. ``"serving"``.
        purpose: what needs it, the subject of a sentence.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        pin = _same_tensorflow() if extra == "serving" else ""
        raise ImportError(
            f"{purpose} needs {error.name}, which is not installed: pip install 'psanet-tf[{extra}]'{pin}"
        ) from error


def _same_tensorflow():
    """What keeps pip from moving TensorFlow to the version of the newest serving API."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # under another name: tensorflow-cpu
        return f" tensorflow=={importlib.metadata.version('tensorflow')}"
    return ""
