"""What importing the package does, and what the command does without it."""

import ast
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow
from typer.testing import CliRunner

import psanet_tf
from psanet_cli.app import _register, app
from psanet_tf.keras_api import keras

ROOT = Path(__file__).parents[1]


def run(*command):
    environment = {
        key: value for key, value in os.environ.items() if key not in ("TF_CPP_MIN_LOG_LEVEL", "PSANET_DEBUG")
    }
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, timeout=300, cwd=ROOT, env=environment
    )


def test_help_of_every_command_comes_without_tensorflow():
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from psanet_cli.app import _register, app\n"
        "_register()\n"
        "commands = [command.name or command.callback.__name__ for command in app.registered_commands]\n"
        "groups = [group.name or group.typer_instance.info.name for group in app.registered_groups]\n"
        "for command in [None, *commands, *groups]:\n"
        "    arguments = [command] if command else []\n"
        "    result = CliRunner().invoke(app, [*arguments, '--help'])\n"
        "    assert result.exit_code == 0, (command, result.output)\n"
        "print(len(commands) + len(groups), sorted({'tensorflow', 'keras', 'psanet_tf'} & set(sys.modules)))\n"
    )
    result = run("-c", program)
    assert result.returncode == 0, result.stderr
    count, modules = result.stdout.strip().split(" ", 1)
    assert int(count) >= 9
    assert modules == "[]"


def test_version_says_which_libraries_are_in_use():
    result = run("-X", "importtime", "-m", "psanet_cli", "--version")
    assert result.returncode == 0, result.stderr
    name = {"keras": "Keras"}.get(keras.__name__, keras.__name__)
    libraries = f"TensorFlow {tensorflow.__version__}, {name} {keras.__version__}"
    assert result.stdout == f"psanet {psanet_tf.__version__}, {libraries}\n"
    assert "tensorflow.python" not in result.stderr  # answered at once


def test_version_finds_a_library_under_the_name_of_another_package(monkeypatch):
    version = importlib.metadata.version

    def as_tensorflow_cpu(package):
        if package in ("tensorflow", "keras"):
            raise importlib.metadata.PackageNotFoundError(package)
        return version({"tensorflow-cpu": "tensorflow"}.get(package, package))

    monkeypatch.setattr(importlib.metadata, "version", as_tensorflow_cpu)
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"tensorflow": ["tensorflow-cpu"]})
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    _register()
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.exception) == (0, None)
    assert result.output.endswith(f", TensorFlow {tensorflow.__version__} (tensorflow-cpu), Keras missing\n")


def test_the_package_runs_as_the_command():
    result = run("-m", "psanet_cli", "--help")
    assert result.returncode == 0
    assert "Usage: python -m psanet_cli" in result.stdout
    # Not TensorFlow's lines about the machine: the command has it silent before it is imported, here too.
    assert result.stderr == ""


def test_public_names():
    for name in psanet_tf.__all__:
        assert callable(getattr(psanet_tf, name))
    assert set(psanet_tf.__all__) <= set(dir(psanet_tf))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        psanet_tf.nothing  # noqa: B018


def _functions(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, ast.FunctionDef, bool]]:
    """(name, function, whether its first argument is the object or class) of what is public in a module or class."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _functions(node.body, f"{owner}{node.name}.")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not node.name.startswith("_") or (owner and node.name in ("__init__", "__call__")):
                is_static = any(getattr(decorator, "id", None) == "staticmethod" for decorator in node.decorator_list)
                yield owner + node.name, node, bool(owner) and not is_static
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _functions(node.body + getattr(node, "orelse", []), owner)


def _unannotated(function: ast.FunctionDef, is_bound: bool) -> list[str]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args][is_bound:]
    variable = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    names = [each.arg for each in (*positional, *arguments.kwonlyargs, *variable) if each.annotation is None]
    return names if function.returns else [*names, "return"]


def test_what_is_public_carries_type_annotations():
    # The package ships py.typed: type checkers take what is not annotated for "anything goes".
    package = ROOT / "psanet_tf"
    assert (package / "py.typed").is_file()
    missing, seen = [], 0
    for file in sorted(package.rglob("*.py")):
        for name, function, is_bound in _functions(ast.parse(file.read_text(encoding="utf-8")).body):
            seen += 1
            if names := _unannotated(function, is_bound):
                missing.append(f"{file.relative_to(ROOT)}:{function.lineno} {name}: {', '.join(names)}")
    assert seen > 450
    assert not missing, "not annotated:\n" + "\n".join(missing)


# Each part may import those before it.
ORDER = (
    {"keras_api", "backbone_families", "feature_sizes", "extras", "progress", "files", "cache", "cores"},
    {"ops", "config", "metrics", "folders"},
    {"layers", "data", "reliability"},
    {"models", "visualization", "losses", "runtimes", "rasters"},
    {"weights"},
    {"inference", "training", "garden"},
    {"evaluation", "export", "serving"},
)


def test_imports_run_one_way():
    rank = {part: level for level, parts in enumerate(ORDER) for part in parts}
    against = []
    for path in sorted((ROOT / "psanet_tf").rglob("*.py")):
        part = path.relative_to(ROOT / "psanet_tf").parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for module in sorted(_imported(ast.parse(path.read_text(encoding="utf-8")))):
            other = module.split(".")[1]
            if other != part and rank[other] >= rank[part]:
                against.append(f"{path.relative_to(ROOT)} imports {module}")
    assert against == []


def _imported(tree):
    """Modules of the package that a module imports when it runs, the package itself left out."""
    for_types = {
        id(node)
        for condition in ast.walk(tree)
        if isinstance(condition, ast.If) and "TYPE_CHECKING" in ast.unparse(condition.test)
        for node in ast.walk(condition)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.startswith("psanet_tf."))
