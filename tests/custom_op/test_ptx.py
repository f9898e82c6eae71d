"""The PTX that the op's library holds: made from these sources, by NVRTC again if it is installed, and assembled for
every architecture if ptxas is."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.any_keras, pytest.mark.extended]

SOURCES = Path(__file__).parents[2] / "custom_ops"
KERNELS = ["PsanetCopyRows2", "PsanetCopyRows4", "PsanetCopyRows8"]
# Pascal to Blackwell.
ARCHITECTURES = ["sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]


def load_make_ptx(path):
    spec = importlib.util.spec_from_file_location("make_ptx", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_ptx():
    return load_make_ptx(SOURCES / "make_ptx.py")


@pytest.fixture
def copied(tmp_path):
    """make_ptx of a copy of the sources, to change them."""
    for path in SOURCES.iterdir():
        if path.suffix in (".cu", ".h", ".py"):
            shutil.copyfile(path, tmp_path / path.name)
    return load_make_ptx(tmp_path / "make_ptx.py")


def needs_nvrtc(make_ptx):
    if make_ptx.find_nvrtc() is None:
        pytest.skip("no NVRTC 11.8 (pip install nvidia-cuda-nvrtc-cu11)")


def test_ptx_was_made_from_these_sources(make_ptx):
    assert make_ptx.recorded_digest() == make_ptx.sources_digest(), "run custom_ops/make_ptx.py"


@pytest.mark.parametrize("name", ["psa_mask_kernel.cu", "psa_mask_vectors.h", "psa_mask_window.h"])
def test_a_change_of_a_source_is_noticed(copied, name):
    path = copied.FOLDER / name
    path.write_text(path.read_text() + "\n// changed\n")
    assert copied.recorded_digest() != copied.sources_digest()


def test_digest_covers_all_that_the_kernels_include(make_ptx):
    included = {
        name
        for source in make_ptx.SOURCES
        for name in re.findall(r'^#include "(.*)"', (SOURCES / source).read_text(), re.MULTILINE)
    }
    assert included == set(make_ptx.SOURCES) - {"psa_mask_kernel.cu"}


def test_ptx_is_for_the_oldest_driver_and_gpu_that_tensorflow_takes(make_ptx):
    ptx = make_ptx.recorded_ptx()
    assert ".version 7.8\n.target sm_60\n.address_size 64\n" in ptx
    assert re.findall(r"^\.visible \.entry (\w+)\(", ptx, re.MULTILINE) == KERNELS
    # The WindowCopy that psa_mask_window.h asserts the size of.
    assert re.findall(r"\.param \.align 8 \.b8 (\w+)_param_0\[72\]", ptx) == KERNELS


def test_nvrtc_makes_the_same_ptx(copied):
    needs_nvrtc(copied)
    before = copied.TARGET.read_bytes()
    copied.TARGET.write_text("")
    assert copied.main() == 0
    assert copied.TARGET.read_bytes() == before


def test_sources_that_do_not_compile_leave_the_ptx_as_it_is(copied):
    needs_nvrtc(copied)
    before = copied.TARGET.read_bytes()
    (copied.FOLDER / "psa_mask_vectors.h").write_text("#include <cstdint>\n")
    with pytest.raises(RuntimeError, match="NVRTC does not take the sources:\n.*cstdint"):
        copied.main()
    assert copied.TARGET.read_bytes() == before


def test_another_release_of_nvrtc_is_refused(copied, monkeypatch):
    needs_nvrtc(copied)
    monkeypatch.setattr(copied, "NVRTC_RELEASE", (11, 7))
    with pytest.raises(RuntimeError, match="this is NVRTC 11.8, the PTX is made with 11.7"):
        copied.main()


def test_compiling_leaves_the_locale_as_it_was(make_ptx, tmp_path):
    needs_nvrtc(make_ptx)

    def text_encoding():
        with open(tmp_path / "text", "w") as file:
            return file.encoding

    before = text_encoding()
    make_ptx.compile_ptx(make_ptx.find_nvrtc())
    assert text_encoding() == before


def test_want_of_nvrtc_is_said(copied, monkeypatch, capsys):
    monkeypatch.setattr(copied, "find_nvrtc", lambda: None)
    assert copied.main() == 2
    assert "pip install nvidia-cuda-nvrtc-cu11==11.8.89" in capsys.readouterr().err


def find_ptxas():
    try:
        spec = importlib.util.find_spec("nvidia.cuda_nvcc")
    except ModuleNotFoundError:
        spec = None
    folders = (spec and spec.submodule_search_locations) or []
    return next((str(path) for folder in folders for path in Path(folder).glob("bin/ptxas")), shutil.which("ptxas"))


def test_ptx_is_assembled_for_every_architecture_without_spilling(make_ptx, tmp_path):
    ptxas = find_ptxas()
    if ptxas is None:
        pytest.skip("no ptxas (pip install nvidia-cuda-nvcc-cu12)")
    known = set(re.findall(r"'(sm_\d+)'", subprocess.check_output([ptxas, "--help"], text=True)))
    architectures = [architecture for architecture in ARCHITECTURES if architecture in known]
    assert architectures
    (tmp_path / "kernels.ptx").write_text(make_ptx.recorded_ptx())
    for architecture in architectures:
        command = [ptxas, "-v", f"-arch={architecture}", "kernels.ptx", "-o", "kernels.cubin"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
        report = result.stdout + result.stderr
        assert result.returncode == 0, report
        spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
        assert spills == [("0", "0", "0")] * len(KERNELS), report
        # At most 64 registers: four blocks of 256 threads at once on every multiprocessor.
        assert all(int(registers) <= 64 for registers in re.findall(r"Used (\d+) registers", report)), report
