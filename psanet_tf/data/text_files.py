"""Small text files that people write: class names, colours, lists of images."""

import os
from pathlib import Path


def read_lines(path: str | os.PathLike, key: str, advice: str) -> list[str]:
    """The lines of a text file, without white space at their ends; those after the last text are left out.

    A byte order mark is skipped.

    Args:
        path: of the file.
        key: of the configuration that names it, for messages.
        advice: what the file must hold, for messages.

    Raises:
        FileNotFoundError: there is no such file; the message says what there is in its place.
        ValueError: not UTF-8, or nothing in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{key}: there is no file {path}{_beside(path)}; it must hold {advice}")
    contents = path.read_bytes()
    if contents.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{key}: {path} is UTF-16: save it as UTF-8")
    try:
        text = contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = contents.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{key}: {path} is not UTF-8 (byte 0x{contents[error.start]:02x} in line {line}): save it as UTF-8, "
            f"e.g. iconv -f latin1 -t utf-8 {path.name} > new.txt"
        ) from None
    if not text.strip():
        raise ValueError(f"{key}: {path} is empty; it must hold {advice}")
    return [line.strip() for line in text.rstrip().splitlines()]


def _beside(path):
    if path.is_dir():
        return " (it is a folder)"
    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    others = sorted(other.name for other in path.parent.iterdir() if other.suffix == path.suffix and other.is_file())
    return f" (there are {', '.join(others[:5])}{', ...' if len(others) > 5 else ''})" if others else ""
