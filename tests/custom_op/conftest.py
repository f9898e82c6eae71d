"""A cache of its own and compilers that do what a test wants."""

import functools
import shutil
import sys
import textwrap

import pytest

from psanet_tf.ops import op_library


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("PSANET_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def script(tmp_path):
    """`script("compiler", "exit 1")` writes a shell script into a temporary folder."""

    def write(name, text):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{textwrap.dedent(text)}")
        path.chmod(0o755)
        return path

    return write


class QuickCompiler:
    """CXX that compiles every source but the stamp to nothing, links the stamp alone, and fails where it shall."""

    def __init__(self, folder, monkeypatch):
        self._calls = folder / "calls"
        self._monkeypatch = monkeypatch
        path = folder / "quick"
        path.write_text(
            f"#!{sys.executable} -S\n"
            + textwrap.dedent(f"""
                import os, sys
                arguments = sys.argv[1:]
                if arguments == ["--version"]:
                    sys.exit(print("quick 1.0"))
                step = "compile" if "-c" in arguments else "link"
                names = [os.path.basename(argument) for argument in arguments]
                with open({str(self._calls)!r}, "a") as file:
                    print(step, *names, file=file)
                if os.environ["FAIL_AT"] in [f"{{step}} {{name}}" for name in names]:
                    exec(os.environ["FAIL_HOW"])
                output = ["-o", arguments[arguments.index("-o") + 1]]
                if step == "link":
                    stamps = [name for name in arguments if name.endswith("stamp.cc.o")]
                    arguments = ["-shared", "-Wl,--no-as-needed", *stamps, *os.environ["LOAD_TOO"].split(), *output]
                elif not any(name.endswith("stamp.cc") for name in arguments):
                    arguments = ["-x", "c++", "-c", "/dev/null", *output]
                os.execvp("g++", ["g++", *arguments])
            """)
        )
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        monkeypatch.setenv("LOAD_TOO", "")
        self.fail_at("nothing")

    def load_too(self, library):
        """From now on what is linked loads the op's `library`, which is whole, with it."""
        self._monkeypatch.setenv("LOAD_TOO", str(library))

    def fail_at(self, step, how=None):
        """From now on `how`, Python, runs in place of `step`, e.g. "compile psa_mask_op.cc"; default: an error."""
        self._monkeypatch.setenv("FAIL_AT", step)
        self._monkeypatch.setenv("FAIL_HOW", how or f"sys.exit('fatal error: cannot {step}')")

    def count(self, name):
        """How often `name` has been compiled or linked so far."""
        return sum(name in line.split() for line in self._calls.read_text().splitlines()) if self._calls.exists() else 0


@pytest.fixture
def quick_compiler(tmp_path, monkeypatch):
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    return QuickCompiler(tmp_path, monkeypatch)


@pytest.fixture
def first_use(monkeypatch):
    """As at the first call of `psa_mask` in a process."""
    psa_mask_module = sys.modules["psanet_tf.ops.psa_mask"]
    monkeypatch.setattr(op_library, "_state", None)
    for name in ("_reason_for_stock", "_say_once"):
        function = getattr(psa_mask_module, name).__wrapped__
        monkeypatch.setattr(psa_mask_module, name, functools.cache(function))
