"""Files that PyTorch's ``torch.save`` wrote, read with NumPy alone.

A checkpoint is a pickle with the tensors' bytes beside it, either members of a zip archive (PyTorch 1.6 and later) or
one after the other behind the pickle (before). Tensors become views of the mapped file, so that opening a large file
costs next to nothing and what is read of it can be dropped again by the operating system.

A pickle can name any function and have it called. The unpickler here knows the handful of names that checkpoints are
made of, none of which does anything but build a tensor or a dict, and refuses every other one.
"""

import collections
import math
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
ZIP_START = b"PK\x03\x04"
_LEGACY_PROTOCOL = 1001

_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def read_pytorch_file(path: str | Path) -> Any:
    """What ``torch.save`` wrote, without PyTorch and without running anything that the file may hold.

    Args:
        path: a file in PyTorch's zip format or in the one before it, little-endian.

    Returns:
        The saved object: dicts, lists, numbers and strings as they are, every tensor a read-only NumPy array that is a
        view of the mapped file, of its own dtype (``ml_dtypes.bfloat16`` for bfloat16) and strides.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, is cut short or damaged, or names something to be called that does not belong
            into a checkpoint; the message says which.

    Example:
        >>> checkpoint = read_pytorch_file("train_epoch_100.pth")
        >>> checkpoint["state_dict"]["module.layer0.0.weight"].shape
        (64, 3, 3, 3)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no PyTorch file {path}")
    with path.open("rb") as file:
        start = file.read(len(LEGACY_START))
    try:
        if start.startswith(ZIP_START):
            tree, storages = _read_zip(path)
        elif start == LEGACY_START:
            tree, storages = _read_legacy(path)
        else:
            raise _DamagedError("it does not begin as a file of torch.save does")
        return _with_arrays(tree, storages, {})
    except RecursionError:
        raise ValueError(f"{path} is refused: its dicts and lists are nested too deeply") from None
    except _RefusedError as error:
        raise ValueError(f"{path} is refused: {error}") from None
    except _DamagedError as error:
        raise ValueError(f"{path} is not a PyTorch file, is damaged or cut short: {error}") from None


class _DamagedError(Exception):
    pass


class _RefusedError(Exception):
    pass


# Everything that a pickle can get hold of is immutable and without a __dict__: its opcodes can also set attributes.
class _Storage(NamedTuple):
    """Bytes of a file that tensors are parts of."""

    key: str
    dtype: np.dtype
    length: int


class _Tensor(NamedTuple):
    """A tensor before the bytes of its storage are known."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self, buffer: np.ndarray) -> np.ndarray:
        """The view of its storage's bytes, once it is sure to lie inside them."""
        values = buffer.view(self.storage.dtype)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True))
        if math.prod(self.size) and last >= len(values):
            raise _DamagedError(f"a tensor of shape {list(self.size)} reaches beyond its {len(values)} stored numbers")
        strides = [stride * values.itemsize for stride in self.stride]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.size, strides, writeable=False)


class _RebuildTensor:
    __slots__ = ()

    def __call__(self, storage, offset, size, stride, *_):
        if not isinstance(storage, _Storage) or len(size) != len(stride):
            raise _DamagedError("a tensor without storage")
        if not all(type(number) is int and number >= 0 for number in (offset, *size, *stride)):
            raise _DamagedError(f"a tensor at {offset!r} of shape {size!r} with strides {stride!r}")
        return _Tensor(storage, offset, tuple(size), tuple(stride))


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, data, *_):
        return data


# All that a checkpoint may name. Types of storages are never called: their names do.
_NAMES = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch", "Size"): tuple,
    **{("torch", name): name for name in _DTYPES},
}


class _Unpickler(pickle.Unpickler):
    """Knows the names above and storages; nothing else."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module, name):
        if (module, name) not in _NAMES:
            raise _RefusedError(
                f"it wants {module}.{name} to be called, which does not belong into a checkpoint; "
                "only tensors, dicts, lists, numbers and strings are read"
            )
        return _NAMES[module, name]

    def persistent_load(self, saved_id):
        # Before the zip format a storage could be a part of another one; PyTorch stopped writing that in 0.4.
        if not isinstance(saved_id, tuple) or len(saved_id) < 5 or saved_id[0] != "storage" or any(saved_id[5:]):
            raise _DamagedError(f"an entry that is no storage: {saved_id!r:.100}")
        kind, key, length = saved_id[1], str(saved_id[2]), saved_id[4]
        if kind not in _DTYPES or type(length) is not int or length < 0:
            raise _DamagedError(f"a storage of {length!r} numbers of type {kind!r}")
        storage = _Storage(key, np.dtype(_DTYPES[kind]), length)
        if self.storages.setdefault(key, storage) != storage:
            raise _DamagedError(f"storage {key} has two types or lengths")
        return storage


def _unpickle(unpickler: pickle.Unpickler) -> Any:
    try:
        return unpickler.load()
    except (_RefusedError, _DamagedError):
        raise
    except Exception as error:
        # Damaged pickles raise nearly anything: what the opcodes are applied to decides.
        raise _DamagedError(f"its table of tensors cannot be read ({type(error).__name__}: {error})") from None


def _read_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            table = next((name for name in members if name.endswith("/data.pkl") and name.count("/") == 1), None)
            if table is None:
                raise _DamagedError("the archive holds no data.pkl")
            folder = table.removesuffix("data.pkl")
            if f"{folder}constants.pkl" in members:
                raise _RefusedError("it is a TorchScript program, not a checkpoint; save its state_dict() instead")
            if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
                raise _RefusedError("its numbers are big-endian; only little-endian files are read")
            with archive.open(table) as file:
                unpickler = _Unpickler(file)
                tree = _unpickle(unpickler)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise _DamagedError(str(error)) from None
    mapped = _mapped(path)
    storages = {}
    for key, storage in unpickler.storages.items():
        member = members.get(f"{folder}data/{key}")
        if member is None:
            raise _DamagedError(f"the numbers of storage {key} are missing")
        if member.compress_type != zipfile.ZIP_STORED:
            raise _DamagedError(f"storage {key} is compressed, which torch.save never does")
        # Names and alignment come between the member's header and its bytes; the header says how much of them.
        header = member.header_offset
        name_length, extra_length = mapped[header + 26 : header + 30].view("<u2").tolist()
        start = header + 30 + name_length + extra_length
        storages[key] = _part(mapped, start, storage, min(member.file_size, len(mapped) - start))
    return tree, storages


def _read_legacy(path):
    with path.open("rb") as file:
        _unpickle(_Unpickler(file))
        protocol, system = _unpickle(_Unpickler(file)), _unpickle(_Unpickler(file))
        if protocol != _LEGACY_PROTOCOL:
            raise _DamagedError(f"protocol {protocol!r:.40} instead of {_LEGACY_PROTOCOL}")
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise _RefusedError("its numbers are big-endian; only little-endian files are read")
        unpickler = _Unpickler(file)
        tree = _unpickle(unpickler)
        keys = _unpickle(_Unpickler(file))
        position = file.tell()
    if not isinstance(keys, list) or set(map(str, keys)) != set(unpickler.storages):
        raise _DamagedError("its list of storages does not fit its tensors")
    mapped = _mapped(path)
    storages = {}
    for key in map(str, keys):
        storage = unpickler.storages[key]
        # The number of entries stands before them once more.
        if mapped[position : position + 8].tobytes() != storage.length.to_bytes(8, "little"):
            raise _DamagedError(f"storage {key} should begin at byte {position} of {len(mapped)}")
        position += 8
        storages[key] = _part(mapped, position, storage, len(mapped) - position)
        position += len(storages[key])
    return tree, storages


def _mapped(path):
    if sys.byteorder != "little":
        raise _RefusedError("this machine is big-endian, the file is not")
    return np.memmap(path, np.uint8, "r").view(np.ndarray)


def _part(mapped, start, storage, available):
    size = storage.length * storage.dtype.itemsize
    if size > available:
        raise _DamagedError(f"storage {storage.key} has {max(available, 0)} of {size} bytes")
    return mapped[start : start + size]


def _with_arrays(tree, storages, done):
    """The tree with arrays where the tensors are; containers that are used twice stay one."""
    if isinstance(tree, _Tensor):
        return tree.array(storages[tree.storage.key])
    if isinstance(tree, _Storage):
        raise _DamagedError("a storage outside of a tensor")
    if not isinstance(tree, (dict, list, tuple, set)):
        return tree
    if id(tree) in done:
        return done[id(tree)]
    if isinstance(tree, dict):
        result = done[id(tree)] = type(tree)()
        result.update((key, _with_arrays(value, storages, done)) for key, value in tree.items())
    elif isinstance(tree, list):
        result = done[id(tree)] = []
        result += (_with_arrays(value, storages, done) for value in tree)
    else:
        result = done[id(tree)] = type(tree)(_with_arrays(value, storages, done) for value in tree)
    return result
