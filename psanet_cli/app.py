"""Puts the subcommands together and turns errors of the user's input into one line."""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import logging
import os
import re
import sys
from pathlib import Path
from typing import Annotated

import absl.logging
import typer

app = typer.Typer(
    name="psanet",
    help="PSANet (point-wise spatial attention, ECCV 2018) for TensorFlow: data, training, evaluation, serving.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

WEIGHTS = (
    "Name of psanet weights list, URL, run folder, .keras, .pth or .safetensors file, checkpoint of Model Garden, "
    "folder of an exported SavedModel, or exported .onnx, .xml or .tflite file."
)


def _package_version():
    """`psanet_tf.__version__`, read, not imported, which would bring TensorFlow along.

    An installation in editable form has metadata of the version that it was installed at.
    """
    source = Path(importlib.util.find_spec("psanet_tf").origin).read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1]


def _version_of(package):
    """Of a package that may have been installed under another name: TensorFlow as tensorflow-cpu."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(package)
        return f"{importlib.metadata.version(names[0])} ({names[0]})" if names else "missing"


def _print_versions(wanted):
    if wanted:
        legacy = os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")  # as in psanet_tf/keras_api.py
        libraries = {"TensorFlow": "tensorflow", **({"tf_keras": "tf_keras"} if legacy else {"Keras": "keras"})}
        versions = {"psanet": _package_version()}
        versions |= {name: _version_of(package) for name, package in libraries.items()}
        print(", ".join(f"{name} {version}" for name, version in versions.items()))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_versions, is_eager=True, help="Print the versions in use and exit."),
    ] = False,
):
    pass


def main():
    """Entry point of the `psanet` command. Exit status: 0 success, 1 failure, 2 wrong input."""
    quiet_libraries()
    keep_memory()
    _register()
    try:
        app()
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("PSANET_DEBUG"):
            raise
        print(f"psanet: error: {error}\n(set PSANET_DEBUG=1 to see where it came from)", file=sys.stderr)
        sys.exit(2)


def end_with_failures(failures, what):
    """Says what could not be read, {of: message}, and ends the command with status 1; without any it goes on."""
    if failures:
        print(f"{len(failures)} {what}:")
        for message in failures.values():
            print(f"  {message}")
        raise typer.Exit(1)


def quiet_libraries():
    """Keeps TensorFlow's log lines away, which bury what the command says; PSANET_DEBUG=1 shows them all.

    To be called before TensorFlow is imported. Errors reach the user as exceptions.
    """
    debug = bool(os.environ.get("PSANET_DEBUG"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if debug else "3")
    if not debug:
        absl.logging.set_verbosity(absl.logging.FATAL)
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        _quiet_abseil()


def keep_memory():
    """Has TensorFlow keep the memory of large CPU tensors for the next ones.

    Without that, every result of more than 32 MB is memory that the system hands out anew, zeroed (docs/benchmarks/
    evaluate.md has what it costs); but for processors on which TensorFlow turns oneDNN's kernels on (AVX-512 VNNI and
    later), where it keeps memory by itself. To be called before TensorFlow is imported.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    # TensorFlow would stop at 64 GB. What the machine has is the only limit otherwise, and stays so.
    os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(2**24))


# absl::SetMinLogLevel(absl::LogSeverityAtLeast), whose name holds Abseil's release, and its argument for FATAL.
_SET_MIN_LOG_LEVEL = "_ZN4absl12lts_{release}14SetMinLogLevelENS0_18LogSeverityAtLeastE"
_ABSEIL_RELEASES = ("20230125", "20230802", "20240116", "20240722", "20250127", "20250512", "20250814")
_FATAL = 3


def _quiet_abseil():
    """Those log lines of TensorFlow that TF_CPP_MIN_LOG_LEVEL is not asked about ("I0000 00:00:...").

    They go through Abseil, whose level no environment variable sets. TensorFlow with another Abseil prints them.
    """
    for set_level in _abseil_level_setters():
        set_level(_FATAL)


def _abseil_level_setters():
    found = importlib.util.find_spec("tensorflow")
    for folder in (found and found.submodule_search_locations) or ():
        for path in Path(folder).glob("libtensorflow_framework.so*"):
            with contextlib.suppress(OSError):
                # Already here when TensorFlow is imported, which takes longer than `psanet --help` may.
                library = ctypes.CDLL(str(path))
                names = [_SET_MIN_LOG_LEVEL.format(release=release) for release in _ABSEIL_RELEASES]
                yield from (getattr(library, name) for name in names if hasattr(library, name))


def _register():
    """Imports every subcommand module; each adds its commands to `app`. They import TensorFlow only when run."""
    from psanet_cli import (  # noqa: F401
        attention,
        calibrate,
        compare,
        data,
        data_import,
        data_tile,
        doctor,
        evaluate,
        export,
        predict,
        serve,
        suggest,
        train,
        weights,
    )
