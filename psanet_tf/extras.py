"""What the package's extras bring may be missing; then the error says which extra it is."""

import contextlib
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
        raise ImportError(
            f"{purpose} needs {error.name}, which is not installed: pip install 'psanet-tf[{extra}]'"
        ) from error
