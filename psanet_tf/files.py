"""Files that appear whole or not at all: written beside their place, then renamed."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_RANDOM_PART = 8  # characters that tempfile puts into a name
_BLOCK = 1 << 18  # bytes that are read at once


class NoSpaceError(OSError):
    """Something could not be written because the disk, or the user's share of it, is full."""

    def __str__(self):
        return self.strerror


@contextlib.contextmanager
def atomic_file(
    path: str | os.PathLike,
    suffix: str | None = None,
    needed_bytes: int | None = None,
    keep_as: str | os.PathLike | None = None,
) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` when the block ends without an error.

    The file's contents and its name are on the disk when this returns, so that not even a power cut leaves half a file.

    Args:
        path: where the file shall be; its folder is made if it is not there.
        suffix: ending of the temporary name, for writers that choose their format by it
            (default: the ending of `path`).
        needed_bytes: about what the file will take, for the message where there is no room.
        keep_as: the file that `path` was before gets this name. Killed between the two renames, there is that one only.

    Raises:
        NoSpaceError: there is no room; the message names `path`, needed and free space. An older file is untouched.

    Example:
        >>> with atomic_file("scores.json") as temporary:
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    suffix = path.suffix if suffix is None else suffix
    temporary = None
    with no_space_explained(path, needed_bytes):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=suffix, dir=path.parent)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            # mkstemp gives 0600; a finished file gets what any other new file would get.
            os.chmod(temporary, 0o666 & ~umask())
            file_to_disk(temporary)
            if keep_as is not None and path.exists():
                os.replace(path, keep_as)
            os.replace(temporary, path)
            folder_to_disk(path.parent)
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike) -> None:
    """Refuses a place for a file before the work whose result it is to hold.

    Raises:
        OSError: `path` is a folder, or its folder can't be written or made.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it")
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        reason = "no folder" if existing.is_file() else "read-only"
        raise PermissionError(f"{path} cannot be written: {existing} is {reason}")


def remove_unfinished(path: str | os.PathLike) -> None:
    """Removes what `atomic_file` left beside `path` when its process was killed; none may be writing there now.

    Args:
        path: as given to `atomic_file`; ``*`` in the name stands for anything.
    """
    path = Path(path)
    for file in path.parent.glob(f".{path.stem}.{'?' * _RANDOM_PART}{path.suffix}"):
        file.unlink(missing_ok=True)


def check_space(path: str | os.PathLike, needed_bytes: int) -> None:
    """Refuses to write what can't fit.

    Args:
        path: what will be written; its folder must be there.
        needed_bytes: what it will take.

    Raises:
        NoSpaceError: less is free.
    """
    if shutil.disk_usage(Path(path).parent).free < needed_bytes:
        raise _no_space(Path(path), needed_bytes)


def hash_file(path: str | os.PathLike, digest: "hashlib._Hash") -> "hashlib._Hash":
    """Feeds a file's contents to a hash of `hashlib`.

    Returns:
        `digest`.

    Raises:
        OSError: the file cannot be read.
    """
    # hashlib.file_digest does the same, from Python 3.11 on.
    block = memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
    return digest


def readable_size(count: float) -> str:
    """ "12.3 MB" """
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "bytes" else f"{value:.1f} {units[0]}"


@contextlib.contextmanager
def no_space_explained(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """A full disk within becomes a `NoSpaceError` that names `path`, what it needs and what is free."""
    try:
        yield
    except NoSpaceError:
        raise
    except OSError as error:
        # HDF5 gives the number in its text only.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) and os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise _no_space(path, needed_bytes) from error


def _no_space(path, needed_bytes):
    folder = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    needed = f"needs about {readable_size(needed_bytes)}, " if needed_bytes else ""
    # Another limit than the disk's.
    quota = " (a quota, or the number of files, is used up)" if free > (needed_bytes or 1e6) else ""
    return NoSpaceError(
        errno.ENOSPC,
        f"no space left to write {path}: {needed}{readable_size(free)} are free{quota}; what was there before is "
        "untouched. Make room on that disk, then give the same command again",
    )


def file_to_disk(path: str | os.PathLike) -> None:
    """Returns when a file's contents are on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def folder_to_disk(path: str | os.PathLike) -> None:
    """Returns when the names in a folder are on the disk."""
    # Windows can't open folders.
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no such call for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def umask() -> int:
    """The permissions that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
