"""Exports as they are downloaded: archives, unpacked for as long as they are read."""

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def unpacked(path: Path, beside: Path | None = None) -> Iterator[Path]:
    """Yields a folder with what a ``.zip`` holds, which is removed in the end; any other path as it is.

    Messages of errors inside speak of the archive, not of that folder.

    Args:
        path: a folder, a file or an archive.
        beside: what will be made of it; the folder lies on the same disk, so that its files can be linked.

    Raises:
        ValueError: no archive in spite of its name, damaged, or encrypted.

    Example:
        >>> with unpacked(Path("export.zip")) as folder:
        ...     inspect_source(folder)
    """
    if path.suffix.lower() != ".zip" or not path.is_file():
        yield path
        return
    place = next((folder for folder in beside.absolute().parents if folder.is_dir()), None) if beside else None
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=place) as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"{path} cannot be unpacked: {error}") from None
        try:
            yield Path(folder)
        except (ValueError, FileNotFoundError) as error:
            if folder not in str(error):
                raise
            raise type(error)(str(error).replace(folder, str(path))) from error
