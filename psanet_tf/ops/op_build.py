"""Compiles the custom op's library. Needs nothing but the standard library and TensorFlow.

`setup.py` runs this file as a program in the environment that the package is installed into; `op_library`
calls it for a build at first use.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Every library says in one string, behind this mark, what it was built for and with.
STAMP_MARK = b"psanet-tf psa_mask stamp: "

_WARNINGS = ("-Wall", "-Wextra", "-Wno-unused-parameter")
# As TensorFlow itself is built: NDEBUG; and no verbose logging (psa_mask_xla.cc says why).
_DEFINES = ("-DNDEBUG", "-DABSL_MAX_VLOG_VERBOSITY=-1")
_COMPILE_FLAGS = ("-O3", "-fPIC", *_DEFINES, *_WARNINGS)
_NVCC_FLAGS = ("-O3", "-std=c++17", "-arch=all-major", "-Xcompiler", "-fPIC", "-x", "cu")
# --no-undefined: what would fail when the library is loaded fails here. --exclude-libs: TensorFlow's GPU
# libraries export cuda* functions of another version, and the static runtime's must not be mixed up with them.
_LINK_FLAGS = ("-shared", "-Wl,--no-undefined", "-Wl,--exclude-libs,ALL")
_SYSTEM = ("-lpthread", "-ldl", "-lrt")

# Folders are left out of what a library's name stands for.
_FOLDER_FLAG = re.compile(r"-(I|L|isystem)")

_LONGEST_COMPILATION = 1800  # seconds; the longest takes 30 on two cores of its own

# What GCC, Clang, linkers and nvcc say of a lack of memory, room or processes. GCC ends with status 1 when the system
# kills the compiler proper.
_LACK = re.compile(
    r"Killed|died due to signal|out of memory|memory exhausted|Cannot allocate memory|Memory allocation failure|"
    r"No space left on device|Disk quota exceeded|Resource temporarily unavailable|Too many open files",
    re.IGNORECASE,
)


class BuildError(Exception):
    """The library cannot be built here; the message says why in one line, `output` is the compiler's."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class LackError(BuildError):
    """The same, for want of memory, room or time: it may well go another time."""


@dataclasses.dataclass(frozen=True)
class Tool:
    """A compiler: its path and the line that names its version."""

    path: str
    version: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a build depends on."""

    identity: dict
    compiler: Tool
    nvcc: Tool | None
    compile_flags: tuple
    link_flags: tuple

    @property
    def key(self) -> str:
        """Names in a few letters what a library's code depends on, the same in every virtual environment."""
        versions = [self.compiler.version, self.nvcc and self.nvcc.version]
        flags = [flag for flag in (*self.compile_flags, *self.link_flags) if not _FOLDER_FLAG.match(flag)]
        return _digest([self.identity, versions, flags, _COMPILE_FLAGS, _NVCC_FLAGS, _LINK_FLAGS])

    @property
    def place_key(self) -> str:
        """Names that and where compilers and headers lie, on which it depends whether all of it compiles."""
        return _digest([self.key, dataclasses.asdict(self)])

    def is_whole(self, stamp: Mapping[str, Any] | None) -> bool:
        """Whether a library with this stamp has every part that can be asked of this plan."""
        return bool(stamp and stamp["xla"] and (stamp["cuda"] or self.nvcc is None))


def _digest(facts):
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def source_folder() -> Path:
    """custom_ops/ beside the package's modules (installed) or beside the package (source tree, editable install)."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "custom_ops", package.parent / "custom_ops"):
        if (folder / "psa_mask_op.cc").is_file():
            return folder
    raise BuildError(f"the op's C++ sources are neither in {package} nor beside it")


def identity() -> dict[str, str]:
    """What a library must have been built for to be loaded here: the same TensorFlow, machine and sources."""
    import tensorflow as tf

    digest = hashlib.sha256()
    for source in sorted(source_folder().iterdir()):
        if source.suffix in (".cc", ".h"):
            digest.update(f"{source.name}\0".encode() + source.read_bytes() + b"\0")
    return {
        "tensorflow": tf.__version__,
        "tensorflow_commit": tf.version.GIT_VERSION,
        "machine": platform.machine(),
        "sources": digest.hexdigest()[:16],
    }


def make_plan() -> Plan:
    """Finds the compilers and TensorFlow's flags.

    Raises:
        BuildError: no C++ compiler, or not on Linux.
    """
    import tensorflow as tf

    if sys.platform != "linux":
        raise BuildError(f"the custom op is for Linux, this is {sys.platform}")
    compiler = find_compiler()
    # TensorFlow's headers warn under other people's flags; its include folder is a system folder to us.
    compile_flags = tuple(re.sub(r"^-I", "-isystem", flag) for flag in tf.sysconfig.get_compile_flags())
    return Plan(identity(), compiler, find_nvcc(), compile_flags, tuple(tf.sysconfig.get_link_flags()))


def find_compiler() -> Tool:
    """The C++ compiler: $CXX, else g++, else c++."""
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else ["g++", "c++"]:
        path = shutil.which(name)
        if path:
            return Tool(path, _output([path, "--version"]).partition("\n")[0])
    raise BuildError(f"no C++ compiler: {f'CXX is {chosen!r}' if chosen else 'neither g++ nor c++ is on PATH'}")


def find_nvcc() -> Tool | None:
    """nvcc of $CUDA_HOME, $CUDA_PATH, PATH, the PyPI package nvidia-cuda-nvcc or /usr/local/cuda; None without."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    candidates = [Path(home) / "bin" / "nvcc" for home in homes if home]
    on_path = shutil.which("nvcc")
    candidates += [Path(on_path)] if on_path else []
    for folder in _namespace_folders("nvidia"):
        candidates += sorted(Path(folder).glob("cu*/bin/nvcc"), reverse=True)
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    for path in candidates:
        release = re.search(r"release .*", _output([str(path), "--version"])) if path.is_file() else None
        if release:
            return Tool(str(path), release.group())
    return None


def _namespace_folders(package):
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # something else of that name is imported already
        return []
    return (spec and spec.submodule_search_locations) or []


def build(plan: Plan, output: str | os.PathLike) -> None:
    """Compiles and links the library.

    Without its CUDA part where nvcc is absent or fails, without its XLA part where that does not compile or link;
    the stamp then says so.

    Args:
        plan: from `make_plan`.
        output: path of the library; replaced in one step when everything is done.

    Raises:
        BuildError: the CPU part does not compile or link.
        LackError: any part lacked memory, room or time, also when it was compiled alone.
    """
    output = Path(output)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=output.parent) as folder:
        build_folder = Path(folder)
        # The longest first.
        (xla_objects, xla_problem), (cuda_objects, cuda_problem), *objects = _side_by_side(
            lambda: _attempt(_compile_xla, plan, build_folder),
            lambda: _attempt(_compile_cuda, plan, build_folder),
            lambda: _compile(plan, source_folder() / "psa_mask_kernel_cpu.cc", build_folder),
            lambda: _compile(plan, source_folder() / "psa_mask_op.cc", build_folder),
        )
        library = build_folder / output.name

        def link(xla_objects, xla_problem):
            stamp = {
                **plan.identity,
                "compiler": plan.compiler.version,
                "cuda": None if cuda_problem else plan.nvcc.version,
                "cuda_problem": cuda_problem,
                "xla": not xla_problem,
                "xla_problem": xla_problem,
            }
            stamp_object = _compile_stamp(plan, stamp, build_folder)
            _link(plan, [*objects, stamp_object, *cuda_objects, *xla_objects], library)

        try:
            link(xla_objects, xla_problem)
        except LackError:
            raise
        except BuildError as error:
            if xla_problem:
                raise
            link([], str(error))
        os.replace(library, output)


def read_stamp(path: str | os.PathLike) -> dict[str, Any] | None:
    """The facts that `build` put into the library, or None if there are none."""
    contents = Path(path).read_bytes()
    begin = contents.rfind(STAMP_MARK)
    if begin < 0:
        return None
    begin += len(STAMP_MARK)
    with contextlib.suppress(ValueError):
        return json.loads(contents[begin : contents.index(b"\0", begin)])
    return None


def mismatch(stamp: Mapping[str, Any] | None, expected: Mapping[str, str]) -> str | None:
    """Why a library with this stamp must not be loaded where `identity()` is `expected`; None if it may."""
    if stamp is None:
        return "it says nothing of what it was built for"
    different = [name for name in expected if stamp.get(name) != expected[name]]
    return (
        ", ".join(f"it was built for {name} {stamp.get(name)}, here is {expected[name]}" for name in different) or None
    )


def _side_by_side(*steps):
    """What the steps return. Those that lacked something beside the others are repeated alone."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        jobs = [pool.submit(step) for step in steps]
    results = []
    for job, step in zip(jobs, steps, strict=True):
        try:
            results.append(job.result())
        except LackError:
            results.append(step())
    return results


def _attempt(step, plan, folder):
    """(objects, None) of an optional part, or ([], why it is left out)."""
    try:
        return step(plan, folder), None
    except LackError:
        raise
    except BuildError as error:
        return [], str(error)


def _compile(plan, source, folder):
    target = folder / (source.name + ".o")
    _run([plan.compiler.path, *plan.compile_flags, *_COMPILE_FLAGS, "-c", str(source), "-o", str(target)])
    return target


def _compile_xla(plan, folder):
    return [_compile(plan, source_folder() / "psa_mask_xla.cc", folder), *_tensorflow_cc(plan)]


def _tensorflow_cc(plan):
    """The library that holds XLA, beside libtensorflow_framework."""
    for flag in plan.link_flags:
        for path in Path(flag[2:]).glob("libtensorflow_cc.so*") if flag.startswith("-L") else []:
            return [path]
    raise BuildError("this TensorFlow has no libtensorflow_cc")


def _compile_cuda(plan, folder):
    if plan.nvcc is None:
        raise BuildError("no nvcc")
    kernel = folder / "psa_mask_kernel.cu.o"
    source = source_folder() / "psa_mask_kernel.cu.cc"
    _run([plan.nvcc.path, "-ccbin", plan.compiler.path, *_NVCC_FLAGS, "-c", str(source), "-o", str(kernel)])
    return [
        _compile(plan, source_folder() / "psa_mask_kernel_gpu.cc", folder),
        kernel,
        static_cuda_runtime(plan.nvcc),
    ]


def static_cuda_runtime(nvcc: Tool) -> Path:
    """Path of libcudart_static.a among the library folders that this nvcc would link with."""
    dryrun = _output([nvcc.path, "--dryrun", "-o", "library.so", "source.cu"])
    folders = [Path(folder) for folder in re.findall(r'"-L([^"]+)"', dryrun)]
    folders += [Path(nvcc.path).resolve().parent.parent / name for name in ("lib64", "lib")]
    for folder in folders:
        if (folder / "libcudart_static.a").is_file():
            return folder / "libcudart_static.a"
    raise BuildError(f"{nvcc.path} has no libcudart_static.a")


def _compile_stamp(plan, stamp, folder):
    source = folder / "stamp.cc"
    text = json.dumps(STAMP_MARK.decode() + json.dumps(stamp))
    source.write_text(f'extern "C" __attribute__((used)) const char psanet_psa_mask_stamp[] = {text};\n')
    return _compile(plan, source, folder)


def _link(plan, objects, library):
    _run([plan.compiler.path, *_LINK_FLAGS, "-o", str(library), *map(str, objects), *plan.link_flags, *_SYSTEM])


def _run(command):
    name = Path(command[0]).name
    try:
        result = _captured(command, _LONGEST_COMPILATION)
    except subprocess.TimeoutExpired:
        raise LackError(f"{name} did not end within {_LONGEST_COMPILATION} seconds", " ".join(command)) from None
    except OSError as error:
        raise BuildError(f"{name} cannot be run: {error}", " ".join(command)) from error
    if result.returncode == 0:
        return
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    lack = [line for line in lines if _LACK.search(line)]
    errors = [line for line in lines if re.search(r"\berror\b|undefined reference", line)]
    # Negative: ended by a signal. Shells report that as 128 and more.
    killed = result.returncode < 0 or result.returncode > 128
    raise (LackError if lack or killed else BuildError)(
        f"{name} failed with status {result.returncode}: {(lack or errors or lines or ['no message'])[0].strip()}",
        output=f"{' '.join(command)}\n{result.stdout}",
    )


def _output(command):
    try:
        return _captured(command, 60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _captured(command, seconds):
    # Compilers quote sources and paths in whatever encoding those have.
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=seconds,
        check=False,
    )


def main(arguments: Sequence[str]) -> int:
    """`python op_build.py LIBRARY`: exit status 0 if it was built; else 3, and one line that says why not."""
    try:
        build(make_plan(), arguments[0])
    except (BuildError, ImportError) as error:
        print(f"the custom op was not built: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
