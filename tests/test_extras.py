"""What happens where an extra is not installed: an error that names it, before any work."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from psanet_tf.extras import needs_extra
from psanet_tf.inference.video import pyav
from psanet_tf.runtimes.protos import serving_apis

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules whose names are not their packages'.
MODULES = {
    "grpcio": "grpc",
    "grpcio_health_checking": "grpc_health",
    "openslide_python": "openslide",
    "tensorflow_serving_api": "tensorflow_serving",
}


def modules_of_extras():
    """Module -> the extra that brings it, of the extras that this package imports from."""
    return {
        MODULES.get(name, name): extra
        for extra in ("serving", "tiff", "video", "geo", "slides", "openvino-int8", "onnx", "openvino", "litert")
        for requirement in PROJECT["optional-dependencies"][extra]
        if not requirement.startswith(("psanet-tf", "openslide-bin"))  # openslide imports its library itself
        for name in [re.match(r"[\w-]+", requirement)[0].replace("-", "_")]
    }


def guarded(path):
    """(module, extra that a `with needs_extra` around its import names, or None) of every import in a file."""

    def walk(node, extra):
        if isinstance(node, ast.With):
            call = node.items[0].context_expr
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "needs_extra":
                extra = call.args[0].value
        if isinstance(node, ast.Import):
            yield from ((alias.name, extra) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", extra
        for child in ast.iter_child_nodes(node):
            yield from walk(child, extra)

    return list(walk(ast.parse(path.read_text()), None))


def test_every_import_from_an_extra_says_which_extra_it_is():
    extras = modules_of_extras()
    serving = {"tensorflow_serving", "grpc", "grpc_health", "aiohttp", "orjson", "prometheus_client"}
    of_formats = {"onnx", "onnxruntime", "tf2onnx", "openvino", "nncf", "ai_edge_litert"}
    assert set(extras) == serving | of_formats | {"av", "tifffile", "imagecodecs", "rasterio", "openslide"}
    found = set()
    for folder in ("psanet_tf", "psanet_cli"):
        for path in (ROOT / folder).rglob("*.py"):
            for module, extra in guarded(path):
                name = module.partition(".")[0]
                assert name != "keras_hub", f"{path}: its backbones are given as models"
                if name in extras:
                    assert extra == extras[name], f"{path}: import of {module}"
                    found.add(name)
    # serving_apis imports tensorflow_serving by name: below. tifffile imports imagecodecs itself.
    assert found == set(extras) - {"tensorflow_serving", "imagecodecs"}


def test_missing_module_is_named_with_its_extra():
    with pytest.raises(
        ImportError, match=r"^flying needs no_such_module, which is not installed: pip install 'psanet-tf\[wings\]'$"
    ):
        with needs_extra("wings", "flying"):
            import no_such_module  # noqa: F401


def test_tensorflow_is_kept_where_it_has_its_usual_name(monkeypatch):
    def version(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ImportError, match=r"pip install 'psanet-tf\[serving\]'$"):
        with needs_extra("serving", "flying"):
            import no_such_module  # noqa: F401


def test_libraries_of_ours_say_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.predict_pb2", None)
    with pytest.raises(ImportError, match=r"labelling videos needs av, .*'psanet-tf\[video\]'"):
        pyav()
    with pytest.raises(ImportError, match=r"an export needs tensorflow_serving.*'psanet-tf\[serving\]'"):
        serving_apis("an export")


COMMANDS = """
import sys
for name in ("grpc", "grpc_health", "aiohttp", "orjson", "prometheus_client", "tensorflow_serving", "av"):
    sys.modules[name] = None
from psanet_cli.app import main
for command in (
    ["serve", "models"],
    ["predict", "image.png", "--server", "grpc://127.0.0.1:1/psanet"],
    ["predict", "image.png", "clip.mp4", "--weights", "none"],
):
    sys.argv = ["psanet", *command]
    try:
        main()
    except SystemExit as exit:
        print(exit.code, file=sys.stderr)
"""


def test_commands_name_the_extra(tmp_path):
    (tmp_path / "models").mkdir()
    for name in ("image.png", "clip.mp4"):
        (tmp_path / name).write_bytes(b"")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("psanet: error:") or line.isdecimal()]
    # The TensorFlow that is there stays.
    install_serving = f"pip install 'psanet-tf[serving]' tensorflow=={importlib.metadata.version('tensorflow')}"
    assert lines == [
        f"psanet: error: the model server needs aiohttp, which is not installed: {install_serving}",
        "2",
        f"psanet: error: the client of a model server needs orjson, which is not installed: {install_serving}",
        "2",
        "psanet: error: labelling videos needs av, which is not installed: pip install 'psanet-tf[video]'",
        "2",
    ]
