"""Finds, or builds, and loads the library of the compiled op, once per process and only when it is needed."""

import contextlib
import ctypes
import dataclasses
import logging
import threading
from pathlib import Path
from types import ModuleType

from psanet_tf.files import cache_folder
from psanet_tf.ops import op_build

logger = logging.getLogger(__name__)

# Where `setup.py` puts a library that was built at installation.
INSTALLED_LIBRARY = Path(__file__).with_name("libpsa_mask.so")

_lock = threading.Lock()
_state = None  # an OpLibrary or the OpUnavailableError of the one attempt


class OpUnavailableError(RuntimeError):
    """The compiled op cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True)
class OpLibrary:
    """The loaded library.

    Attributes:
        path: its file.
        stamp: what it was built for and with: "tensorflow", "tensorflow_commit", "machine", "sources",
            "compiler", "cuda" and "cuda_problem", "xla" and "xla_problem".
        ops: the module of generated functions (`psa_mask`, `psa_mask_grad`).
    """

    path: Path
    stamp: dict
    ops: ModuleType

    def device_problem(self):
        """Why the CUDA kernels cannot run on this machine's GPUs, or None if they can."""
        if self.stamp["cuda"] is None:
            return f"the op was built without its CUDA part ({self.stamp['cuda_problem']})"
        function = ctypes.CDLL(str(self.path)).PsanetDeviceProblem
        function.restype = ctypes.c_char_p
        problem = function()
        return None if problem is None else problem.decode()


def load_op_library():
    """The library; built first if there is none for this TensorFlow yet.

    It is looked for in the package (built at installation), then in the cache: the folder that the environment
    variable PSANET_CACHE_DIR names, else psanet_tf in $XDG_CACHE_HOME, else ~/.cache/psanet_tf. Only a library that
    was built for this very TensorFlow, machine and sources is loaded.

    Raises:
        OpUnavailableError: there is none and none can be built; the same error at every further call.
    """
    global _state
    with _lock:
        if _state is None:
            try:
                _state = _load(_find_or_build())
            except OpUnavailableError as error:
                _state = error
    if isinstance(_state, OpUnavailableError):
        raise _state
    return _state


def registered_kernels():
    """{op: {device type: [dtype, ...]}} of the kernels that TensorFlow has for the library's ops."""
    from tensorflow.python.framework import dtypes, kernels

    found = {}
    for op in ("PsaMask", "PsaMaskGrad"):
        devices = found.setdefault(op, {})
        for kernel in kernels.get_registered_kernels_for_op(op).kernel:
            types = [dtypes.as_dtype(t).name for c in kernel.constraint for t in c.allowed_values.list.type]
            devices.setdefault(kernel.device_type, []).extend(types)
    return {op: {device: sorted(types) for device, types in sorted(devices.items())} for op, devices in found.items()}


def _load(path):
    import tensorflow as tf

    try:
        ops = tf.load_op_library(str(path))
    except (tf.errors.OpError, RuntimeError, OSError) as error:
        raise OpUnavailableError(f"{path} cannot be loaded: {error}") from error
    return OpLibrary(path, op_build.read_stamp(path), ops)


def _find_or_build():
    try:
        expected = op_build.identity()
        if _usable(INSTALLED_LIBRARY, expected):
            return INSTALLED_LIBRARY
        try:
            plan = op_build.make_plan()
        except op_build.BuildError as error:
            return _cached_by_another_compiler(expected, error)
        path = cache_folder() / f"psa_mask-{plan.key}.so"
        return path if _usable(path, expected) else _build_once(plan, path)
    except op_build.BuildError as error:
        raise OpUnavailableError(str(error)) from error
    except OSError as error:
        raise OpUnavailableError(
            f"the cache {cache_folder()} cannot be used ({error}); PSANET_CACHE_DIR can name another folder"
        ) from error


def _usable(path, expected):
    if not path.is_file():
        return False
    problem = op_build.mismatch(op_build.read_stamp(path), expected)
    if problem:
        logger.warning("psa_mask: not loading %s: %s", path, problem)
    return problem is None


def _cached_by_another_compiler(expected, error):
    """A library that was built here when there was a compiler."""
    for path in sorted(cache_folder().glob("psa_mask-*.so")):
        if _usable(path, expected):
            return path
    raise error


def _build_once(plan, path):
    """Builds unless another process does so first; whoever comes second waits and takes the finished library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock")):
        if _usable(path, plan.identity):
            return path
        logger.warning("psa_mask: compiling the custom op for TensorFlow %s, once ...", plan.identity["tensorflow"])
        try:
            op_build.build(plan, path)
        except op_build.BuildError as error:
            log = path.with_suffix(".log")
            log.write_text(error.output)
            raise op_build.BuildError(f"{error} (see {log})") from error
        logger.warning("psa_mask: compiled; kept in %s", path)
    return path


@contextlib.contextmanager
def _locked(path):
    import fcntl  # not on every system; where it is missing, nothing is built (op_build.make_plan)

    with open(path, "w") as file:
        # Some network file systems have no locks; the build's last step, a rename, is safe without.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
