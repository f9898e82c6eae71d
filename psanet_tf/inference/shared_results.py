"""A folder of results into which several machines write: all of one network, labelled one way."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SETTINGS_FILE = "settings.json"


def share_results(out: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    """Notes in a folder of results what makes them; the first of several machines does, the others compare.

    Args:
        out: the folder; made if it is not there.
        settings: for JSON: whatever tells these results from others, and is the same on every machine.

    Raises:
        ValueError: the folder holds results of something else, or of a time when this was not noted.
    """
    out = Path(out)
    text = json.dumps(dict(settings), indent=2, sort_keys=True)
    file = out / SETTINGS_FILE
    if not file.exists() and (out / "labels").is_dir():
        raise ValueError(f"{out} holds results that do not say what made them: choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    own = out / f".{SETTINGS_FILE}.{os.uname().nodename}.{os.getpid()}"
    own.write_text(text, encoding="utf-8")
    try:
        # Fails where another machine was faster; then its text is whole.
        os.link(own, file)
    except FileExistsError:
        there = json.loads(file.read_text(encoding="utf-8"))
        now = json.loads(text)
        if different := sorted(key for key in there.keys() | now.keys() if there.get(key) != now.get(key)):
            changes = "; ".join(f"{key}: {there.get(key)}, now {now.get(key)}" for key in different)
            raise ValueError(
                f"{out} holds results made otherwise ({changes}): choose another folder with --out"
            ) from None
    finally:
        own.unlink()
