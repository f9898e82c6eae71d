"""Compiles the custom op's library. Needs nothing but the standard library and TensorFlow.

`setup.py` runs this file as a program in the environment that the package is installed into; `op_library`
calls it for a build at first use.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
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
_COMPILE_FLAGS = ("-O3", "-fPIC", "-DNDEBUG", *_WARNINGS)  # NDEBUG as TensorFlow itself is built
# --no-undefined: what would fail when the library is loaded fails here.
_LINK_FLAGS = ("-shared", "-Wl,--no-undefined")
_SYSTEM = ("-lpthread", "-ldl")

# Folders are left out of what a library's name stands for.
_FOLDER_FLAG = re.compile(r"-(I|L|isystem)")

_LONGEST_COMPILATION = 1800  # seconds; the longest takes 12 on a core of its own

# What GCC, Clang and linkers say of a lack of memory, room or processes. GCC ends with status 1 when the system
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
    compile_flags: tuple
    link_flags: tuple

    @property
    def key(self) -> str:
        """Names in a few letters what a library's code depends on, the same in every virtual environment."""
        flags = [flag for flag in (*self.compile_flags, *self.link_flags) if not _FOLDER_FLAG.match(flag)]
        return _digest([self.identity, self.compiler.version, flags, _COMPILE_FLAGS, _LINK_FLAGS])

    @property
    def place_key(self) -> str:
        """Names where compiler and headers lie, too, on which it depends whether it compiles."""
        return _digest([self.key, dataclasses.asdict(self)])


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
    """Finds the compiler and TensorFlow's flags.

    Raises:
        BuildError: no C++ compiler, or not on Linux.
    """
    import tensorflow as tf

    if sys.platform != "linux":
        raise BuildError(f"the custom op is for Linux, this is {sys.platform}")
    compiler = find_compiler()
    # TensorFlow's headers warn under other people's flags; its include folder is a system folder to us.
    compile_flags = tuple(re.sub(r"^-I", "-isystem", flag) for flag in tf.sysconfig.get_compile_flags())
    return Plan(identity(), compiler, compile_flags, tuple(tf.sysconfig.get_link_flags()))


def find_compiler() -> Tool:
    """The C++ compiler: $CXX, else g++, else c++."""
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else ["g++", "c++"]:
        path = shutil.which(name)
        if path:
            return Tool(path, _output([path, "--version"]).partition("\n")[0])
    raise BuildError(f"no C++ compiler: {f'CXX is {chosen!r}' if chosen else 'neither g++ nor c++ is on PATH'}")


def build(plan: Plan, output: str | os.PathLike) -> None:
    """Compiles and links the library.

    Args:
        plan: from `make_plan`.
        output: path of the library; replaced in one step when everything is done.

    Raises:
        BuildError: it does not compile or link.
        LackError: for lack of memory, room or time, also when a source was compiled alone.
    """
    output = Path(output)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=output.parent) as folder:
        build_folder = Path(folder)
        sources = [*sorted(source_folder().glob("*.cc")), _write_stamp(plan, build_folder)]
        objects = _compile_all(plan, sources, build_folder)
        library = build_folder / output.name
        _run([plan.compiler.path, *_LINK_FLAGS, "-o", str(library), *map(str, objects), *plan.link_flags, *_SYSTEM])
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


def _write_stamp(plan, folder):
    source = folder / "stamp.cc"
    text = json.dumps(STAMP_MARK.decode() + json.dumps({**plan.identity, "compiler": plan.compiler.version}))
    source.write_text(f'extern "C" __attribute__((used)) const char psanet_psa_mask_stamp[] = {text};\n')
    return source


def _compile_all(plan, sources, folder):
    """The object files. A source that lacked something beside the others is compiled again alone."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        jobs = [pool.submit(_compile, plan, source, folder) for source in sources]
    objects = []
    for job, source in zip(jobs, sources, strict=True):
        try:
            objects.append(job.result())
        except LackError:
            objects.append(_compile(plan, source, folder))
    return objects


def _compile(plan, source, folder):
    target = folder / (source.name + ".o")
    _run([plan.compiler.path, *plan.compile_flags, *_COMPILE_FLAGS, "-c", str(source), "-o", str(target)])
    return target


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
