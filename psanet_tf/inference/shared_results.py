"""A folder of results into which several machines write: all of one network, labelled one way."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SETTINGS_FILE = "settings.json"
_WRITING_SECONDS = 5.0  # after which what another machine writes is whole, or will never be
_PAUSE_SECONDS = 0.1
_SHOWN = 60  # characters of a value in a message


def share_results(out: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    """Notes in a folder of results what makes them; the first of several machines does, the others compare.

    Args:
        out: the folder; made if it is not there.
        settings: for JSON: whatever tells these results from others, and is the same on every machine.

    Raises:
        ValueError: the folder holds results of something else, or of a time when this was not noted; or the note is
            damaged.
        OSError: it cannot be written.
    """
    out = Path(out)
    text = json.dumps(dict(settings), indent=2, sort_keys=True)
    file = out / SETTINGS_FILE
    if not file.exists() and (out / "labels").is_dir():
        raise ValueError(f"{out} holds results that do not say what made them: choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    if _is_first(file, text):
        return
    there, now = _read(file), json.loads(text)
    if different := sorted(key for key in there.keys() | now.keys() if there.get(key) != now.get(key)):
        changes = "; ".join(_change(key, there.get(key), now.get(key)) for key in different)
        raise ValueError(f"{out} holds results made otherwise ({changes}): choose another folder with --out")


def _is_first(file, text):
    """Writes a file that is not there yet; False where another machine was faster."""
    own = file.with_name(f".{file.name}.{os.uname().nodename}.{os.getpid()}")
    own.write_text(text, encoding="utf-8")
    try:
        # Another machine finds the file whole or not at all.
        os.link(own, file)
    except FileExistsError:
        return False
    except OSError:
        # File systems such as exFAT's and many SMB servers' have no second names of a file, and say so in many ways.
        return _is_first_to_open(file, text)
    finally:
        own.unlink()
    return True


def _is_first_to_open(file, text):
    """As `_is_first`, but for a moment the file is there and not yet whole."""
    try:
        stream = file.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with stream:
            stream.write(text)
    except BaseException:
        file.unlink()
        raise
    return True


def _read(file):
    """What a machine noted, which may be writing just now."""
    for _ in range(round(_WRITING_SECONDS / _PAUSE_SECONDS)):
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            time.sleep(_PAUSE_SECONDS)
    raise ValueError(f"{file} is damaged: remove it if no machine is working here, and give the same command again")


def _change(key, before, now):
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        place = next(place for place, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1])
        key, before, now = f"{key}[{place}]", before[place], now[place]
    before, now = (str(value) if len(str(value)) <= _SHOWN else f"{str(value)[:_SHOWN]}..." for value in (before, now))
    return f"{key}: {before}, now {now}"
