"""The folder for what is made or fetched once and used again: the compiled op, downloaded weights, plain images."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder that the environment variable PSANET_CACHE_DIR names, else psanet_tf in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        OSError: no variable is set and the user has no home folder, or ~name stands for no user.
    """
    chosen = os.environ.get("PSANET_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return Path(base) / "psanet_tf" if base else Path.home() / ".cache" / "psanet_tf"
    except RuntimeError:
        raise OSError(
            "there is no home folder for the cache: set PSANET_CACHE_DIR to a folder that only you can write to"
        ) from None
