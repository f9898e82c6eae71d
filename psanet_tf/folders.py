"""Folders that appear whole or not at all: written beside their place, then renamed."""

import contextlib
import errno
import glob
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from psanet_tf.files import file_to_disk, folder_to_disk, no_space_explained, umask

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_UNFINISHED = ".unfinished"


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; renames it to `path` when the block ends without an error.

    What a killed process has left of an earlier try is removed first.

    Raises:
        FileExistsError: `path` exists already; nothing is replaced.
        NoSpaceError: there is no room; see `psanet_tf.files.atomic_file`.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already; remove it or choose another place")
    with no_space_explained(path), hidden_folder(path.parent, path.name) as temporary:
        yield temporary
        _contents_to_disk(temporary)
        os.rename(temporary, path)
        folder_to_disk(path.parent)


class NumberedFolder:
    """One of the folders ``1``, ``2``, ... in a folder.

    Attributes:
        temporary: where it is written.
        path: where it is then; None until it is finished.
    """

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        self.path: Path | None = None


@contextlib.contextmanager
def atomic_numbered_folder(parent: str | os.PathLike, first: int) -> Iterator[NumberedFolder]:
    """As `atomic_folder`, for the next of a sequence: it is the renaming that takes the number.

    Args:
        parent: holds the folders; made if it is not there.
        first: the lowest number that is tried. Taken is the first one from it on of which there is nothing, or an empty
            folder, when the block ends without an error; processes that write at the same time get different ones.

    Raises:
        NoSpaceError: there is no room; see `psanet_tf.files.atomic_file`.

    Example:
        >>> with atomic_numbered_folder("models/psanet", 1) as version:
        ...     (version.temporary / "saved_model.pb").write_bytes(b"")
        >>> version.path
        PosixPath('models/psanet/1')
    """
    parent = Path(parent)
    with no_space_explained(parent / str(first)), hidden_folder(parent, str(first), "[0-9]*") as temporary:
        folder = NumberedFolder(temporary)
        yield folder
        _contents_to_disk(temporary)
        folder.path = _renamed_to_free(temporary, parent, first)
        folder_to_disk(parent)


@contextlib.contextmanager
def hidden_folder(parent: Path, name: str, siblings: str | None = None) -> Iterator[Path]:
    """Yields a new folder ``.NAME.random.unfinished``, which is removed at the end if it is still there.

    It is locked until then. Such folders that nobody has locked were left by killed processes: they are removed first.

    Args:
        parent: where it is; made if it is not there.
        name: of what is written.
        siblings: pattern of the names of which what was left is removed; default: this one.
    """
    siblings = glob.escape(name) if siblings is None else siblings
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f".{siblings}.*{_UNFINISHED}"):
        with contextlib.suppress(OSError):
            if (lock := _lock(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
    temporary, lock = None, None
    try:
        while lock is None:
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=_UNFINISHED, dir=parent))
            try:
                lock = _lock(temporary)  # None: taken for one that was left, in this moment
            except OSError:
                break  # nothing can be locked here, and so nothing is ever removed
        yield temporary
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock(folder):
    """A descriptor that locks a folder until it is closed, at the latest when the process ends.

    None where another process has locked it, or has removed it. OSError where nothing can be locked.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has no locks of folders")
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _renamed_to_free(temporary, parent, first):
    """The path that `temporary` has after it was renamed to the first free number."""
    for number in itertools.count(first):
        path = parent / str(number)
        try:
            # Replaces a folder only if that is empty, and nothing on Windows.
            os.rename(temporary, path)
            return path
        except OSError:
            if not path.exists():
                raise


def _contents_to_disk(folder):
    os.chmod(folder, 0o777 & ~umask())
    for inner, _, files in os.walk(folder):
        for name in files:
            file_to_disk(Path(inner) / name)
        folder_to_disk(inner)
