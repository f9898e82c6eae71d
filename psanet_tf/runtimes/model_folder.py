"""A model on disk: a folder with one folder per version, ``1``, ``2`` and so on."""

import os
import re
from pathlib import Path

_GRAPH_FILE = "saved_model.pb"


def versions_on_disk(base_path: str | os.PathLike) -> dict[int, Path]:
    """dict version -> folder of every complete model below `base_path`; other names are not looked at."""
    try:
        children = list(Path(base_path).iterdir())
    except OSError:
        return {}  # gone, or out of reach for the moment: what is loaded stays
    return {
        int(child.name): child
        for child in children
        if re.fullmatch(r"\d{1,18}", child.name) and (child / _GRAPH_FILE).is_file()
    }


def saved_model_folder(path: str | os.PathLike) -> Path | None:
    """`path` if it holds a SavedModel, or the newest of the versions in it; None if there is none."""
    path = Path(path)
    if (path / _GRAPH_FILE).is_file():
        return path
    versions = versions_on_disk(path)
    return versions[max(versions)] if versions else None
