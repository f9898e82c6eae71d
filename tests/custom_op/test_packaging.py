"""What a wheel carries of the op, with and without a compiler at installation."""

import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest

from psanet_tf.ops import op_build

pytestmark = pytest.mark.extended

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source_tree(tmp_path_factory):
    """The files that a wheel is made of, apart from the working tree: the build writes beside them."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("psanet_tf", "psanet_cli", "custom_ops"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tree / name)
    return tree


def build_wheel(tree, folder, **environment):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        ".",
    ]
    result = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    if "No module named pip" in result.stderr:
        pytest.skip("no pip")
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        library = "psanet_tf/ops/libpsa_mask.so"
        names = archive.namelist()
        return wheel.name, set(names), archive.read(library) if library in names else None


def test_wheel_without_a_compiler_is_for_every_platform_and_carries_the_sources(source_tree, tmp_path):
    (tmp_path / "bin").mkdir()
    name, files, library = build_wheel(source_tree, tmp_path, PATH=str(tmp_path / "bin"), HOME=str(tmp_path))
    assert name.endswith("-py3-none-any.whl")
    assert library is None
    sources = {path.name for path in (ROOT / "custom_ops").iterdir() if path.suffix in (".cc", ".h")}
    assert "psa_mask_ptx.h" in sources
    assert {f"psanet_tf/custom_ops/{source}" for source in sources} <= files
    # The package is whole: modules and data files.
    packages = (ROOT / "psanet_tf", ROOT / "psanet_cli")
    modules = {str(path.relative_to(ROOT)) for package in packages for path in package.rglob("*.py")}
    assert modules <= files
    assert "psanet_tf/data/classes/ade20k_names.txt" in files


def test_source_distribution_carries_all_of_the_op(source_tree, tmp_path):
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, cwd=source_tree, check=True, capture_output=True, timeout=240)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    tracked = {path.name for path in (ROOT / "custom_ops").iterdir() if path.is_file()}
    assert {"psa_mask_kernel.cu", "make_ptx.py", "psa_mask_ptx.h"} <= tracked
    assert {f"custom_ops/{name}" for name in tracked} <= names


def test_wheel_with_a_compiler_carries_a_library_for_this_tensorflow(source_tree, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    # Compiles nothing but the stamp: what is tested is where the library goes.
    compiler = tmp_path / "compiler"
    compiler.write_text(
        "#!/bin/bash\n"
        + textwrap.dedent("""
            output="${@: -1}"
            case "$*" in
              --version) exec g++ --version ;;
              *stamp.cc\\ -o*) exec g++ "$@" ;;
              *\\ -c\\ *) exec g++ -x c++ -c /dev/null -o "$output" ;;
            esac
            stamp=$(printf "%s\\n" "$@" | grep 'stamp.cc.o$')
            exec g++ -shared "$stamp" -o "$(dirname "$stamp")/libpsa_mask.so"
        """)
    )
    compiler.chmod(0o755)
    name, _, library = build_wheel(source_tree, tmp_path, PATH="/usr/bin:/bin", HOME=str(tmp_path), CXX=str(compiler))
    assert "-linux_" in name
    (tmp_path / "library.so").write_bytes(library)
    assert op_build.mismatch(op_build.read_stamp(tmp_path / "library.so"), op_build.identity()) is None
