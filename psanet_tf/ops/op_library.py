"""Finds, or builds, and loads the library of the compiled op, once per process and only when it is needed."""

import contextlib
import ctypes
import dataclasses
import json
import logging
import threading
import time
from pathlib import Path
from types import ModuleType

from psanet_tf.cache import cache_folder
from psanet_tf.files import atomic_file
from psanet_tf.ops import op_build

logger = logging.getLogger(__name__)

# Where `setup.py` puts a library that was built at installation.
INSTALLED_LIBRARY = Path(__file__).with_name("libpsa_mask.so")

# For how long a build that lacked memory, room or time is not tried again, in seconds.
_PAUSE = 3600

_lock = threading.Lock()
_state = None  # an OpLibrary or the OpUnavailableError of the one attempt


class OpUnavailableError(RuntimeError):
    """The compiled op cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True)
class OpLibrary:
    """The loaded library.

    Attributes:
        path: its file.
        stamp: what it was built for and with: "tensorflow", "tensorflow_commit", "machine", "sources", "compiler".
        ops: the module of generated functions (`psa_mask`, `psa_mask_grad`).
    """

    path: Path
    stamp: dict
    ops: ModuleType

    def gpu_problem(self) -> str | None:
        """Why the op's kernels cannot run on a GPU that TensorFlow sees, or None; loads them into each of the GPUs."""
        import tensorflow as tf

        function = ctypes.CDLL(str(self.path)).PsanetGpuProblem
        function.restype = ctypes.c_char_p
        # TensorFlow makes its contexts here, if it has not yet, with its own settings; the kernels go into those.
        tf.config.list_logical_devices("GPU")
        for device in tf.config.get_visible_devices("GPU"):
            name = device.name.removeprefix("/physical_device:")
            problem = function(int(name.rpartition(":")[2]))
            if problem is not None:
                return f"{name}: {problem.decode(errors='replace')}"
        return None


def load_op_library() -> OpLibrary:
    """The library; built first if there is none for this TensorFlow yet.

    It is looked for in the package (built at installation), then in the cache: the folder that the environment
    variable PSANET_CACHE_DIR names, else psanet_tf in $XDG_CACHE_HOME, else ~/.cache/psanet_tf. Only a library that
    was built for this very TensorFlow, machine and sources is loaded. A build that failed is remembered in the cache
    and not tried again; the error names the file to delete for that.

    Raises:
        OpUnavailableError: there is none and none can be built; the same error at every further call.
    """
    global _state
    with _lock:
        if _state is None:
            try:
                _state = _installed() or _load(_find_or_build())
            except OpUnavailableError as error:
                _state = error
            except Exception as error:
                # Whatever it is, stock ops do the work; nobody's training ends for want of an accelerator.
                _state = OpUnavailableError(f"it could not be set up: {type(error).__name__}: {error}")
                _state.__cause__ = error
    if isinstance(_state, OpUnavailableError):
        raise _state
    return _state


def registered_kernels() -> dict[str, dict[str, list[str]]]:
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


def _installed():
    """The library that was built at installation, or None if there is none that can be used: one may be built now."""
    try:
        usable = _usable(INSTALLED_LIBRARY, op_build.identity())
    except op_build.BuildError:  # there are no sources, and what one was built from cannot be told
        return None
    try:
        return _load(INSTALLED_LIBRARY) if usable else None
    except OpUnavailableError as error:
        logger.warning("psa_mask: not using the installed library: %s", error)
        return None


def _find_or_build():
    """Path of the cached library; built first if there is none."""
    try:
        expected = op_build.identity()
        cache = cache_folder()
        try:
            plan = op_build.make_plan()
        except op_build.BuildError as error:
            return _cached_by_another_compiler(cache, expected, error)
        try:
            return _cached(cache, plan) or _build_once(cache, plan)
        except OSError as error:
            raise OpUnavailableError(
                f"the cache {cache} cannot be used ({error}); PSANET_CACHE_DIR can name another folder"
            ) from error
    except (op_build.BuildError, OSError) as error:
        raise OpUnavailableError(str(error)) from error


def _usable(path, expected):
    try:
        if not path.is_file():
            return False
        problem = op_build.mismatch(op_build.read_stamp(path), expected)
    except OSError as error:
        problem = f"it cannot be read ({error.strerror or error})"
    if problem:
        logger.warning("psa_mask: not loading %s: %s", path, problem)
    return problem is None


def _cached(cache, plan):
    path = _cached_path(cache, plan)
    return path if _usable(path, plan.identity) else None


def _cached_path(cache, plan):
    return cache / f"psa_mask-{plan.key}.so"


def _cached_by_another_compiler(cache, expected, error):
    """A library that was built here when there was a compiler."""
    for path in sorted(cache.glob("psa_mask-*.so")):
        if _usable(path, expected):
            return path
    raise error


def _build_once(cache, plan):
    """Builds unless another process does so first; whoever comes second waits and takes what came of it."""
    cache.mkdir(parents=True, exist_ok=True)
    failure = cache / f"psa_mask-{plan.place_key}.failure"
    with _locked(cache / f"psa_mask-{plan.key}.lock"):
        path = _cached(cache, plan)
        if path:
            return path
        _raise_remembered(failure)
        logger.warning("psa_mask: compiling the custom op for TensorFlow %s, once ...", plan.identity["tensorflow"])
        path = _cached_path(cache, plan)
        try:
            op_build.build(plan, path)
        except op_build.BuildError as error:
            _remember(failure, error)
            _raise_remembered(failure)
            raise
        failure.unlink(missing_ok=True)
        logger.warning("psa_mask: compiled; kept in %s", path)
    return path


def _remember(path, error):
    """Writes down why a build failed: one line for `_raise_remembered`, then what the compiler said."""
    summary = {"reason": str(error), "lack": isinstance(error, op_build.LackError)}
    # What cannot be written is not remembered; the reason of the failure is worth more than that of this.
    with contextlib.suppress(OSError), atomic_file(path) as temporary:
        temporary.write_text(f"{json.dumps(summary)}\n{error.output}", encoding="utf-8")


def _raise_remembered(path):
    """Raises what `_remember` wrote, unless it was for want of memory, room or time and a while ago."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8").partition("\n")[0])
        reason, lack = summary["reason"], summary["lack"]
        age = time.time() - path.stat().st_mtime
    except (OSError, ValueError, LookupError, TypeError):
        return  # none, or nothing that can be read
    if lack and not 0 <= age + 60 <= _PAUSE:
        return
    again = f"it is compiled again after {_PAUSE // 60} minutes, or" if lack else "it is compiled again"
    raise op_build.BuildError(f"{reason} (see {path}; {again} when that file is deleted)")


@contextlib.contextmanager
def _locked(path):
    import fcntl  # not on every system; where it is missing, nothing is built (op_build.make_plan)

    with open(path, "w") as file:
        # Some network file systems have no locks; the build's last step, a rename, is safe without.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
