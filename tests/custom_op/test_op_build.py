"""Building the op's library: what its name stands for, sources that fail, failures that are remembered."""

import dataclasses
import os

import pytest

from psanet_tf.ops import OpUnavailableError, op_build, op_library

pytestmark = pytest.mark.extended

# GCC, when the system kills the compiler proper for memory.
KILLED = "print('g++: fatal error: Killed signal terminated program cc1plus'); sys.exit(1)"


@pytest.fixture(autouse=True)
def not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(op_library, "INSTALLED_LIBRARY", tmp_path / "none.so")


def elsewhere(plan):
    """The same plan in another virtual environment."""
    tool = dataclasses.replace(plan.compiler, path="/elsewhere/g++")
    flags = [
        tuple(f"{flag[: flag.index('/')]}/elsewhere" if "/" in flag else flag for flag in flags)
        for flags in (plan.compile_flags, plan.link_flags)
    ]
    assert flags[0] != plan.compile_flags
    return dataclasses.replace(plan, compiler=tool, compile_flags=flags[0], link_flags=flags[1])


def test_key_is_the_same_in_every_environment(quick_compiler):
    plan = op_build.make_plan()
    assert elsewhere(plan).key == plan.key
    assert elsewhere(plan).place_key != plan.place_key
    for changed in (
        {"compiler": dataclasses.replace(plan.compiler, version="quick 2.0")},
        {"compile_flags": (*plan.compile_flags, "-D_GLIBCXX_USE_CXX11_ABI=0")},
        {"link_flags": (*plan.link_flags, "-l:libother.so")},
        {"identity": plan.identity | {"tensorflow": "2.19.0"}},
    ):
        assert dataclasses.replace(plan, **changed).key != plan.key


def test_other_sources_make_another_key(tmp_path, monkeypatch):
    plan = op_build.make_plan()
    assert plan.key == op_build.make_plan().key
    monkeypatch.setattr(op_build, "source_folder", lambda: tmp_path)
    (tmp_path / "psa_mask_op.cc").write_text("int other;\n")
    assert op_build.make_plan().key != plan.key
    assert op_build.mismatch(plan.identity, op_build.identity()).startswith("it was built for sources ")


def test_environments_share_a_library(quick_compiler, cache):
    path = op_library._find_or_build()
    plan = op_build.make_plan()
    assert path == cache / f"psa_mask-{plan.key}.so"
    assert op_library._cached(cache, elsewhere(plan)) == path


def test_failure_is_remembered_until_its_file_is_deleted(quick_compiler, cache, caplog):
    quick_compiler.fail_at(
        "compile psa_mask_op.cc", "print('ignored', 'op.cc:1:1: error: no patience', sep='\\n'); sys.exit(1)"
    )
    messages = []
    for _ in range(2):
        with pytest.raises(OpUnavailableError) as raised:
            op_library._find_or_build()
        messages.append(str(raised.value))
    failure = cache / f"psa_mask-{op_build.make_plan().place_key}.failure"
    assert messages == 2 * [
        f"quick failed with status 1: op.cc:1:1: error: no patience (see {failure}; it is compiled again when that "
        "file is deleted)"
    ]
    assert "ignored\n" in failure.read_text()
    assert quick_compiler.count("psa_mask_op.cc") == 1
    assert [record.getMessage()[:30] for record in caplog.records] == ["psa_mask: compiling the custom"]
    assert not list(cache.glob("*.so"))
    failure.unlink()
    quick_compiler.fail_at("nothing")
    assert op_library._find_or_build().is_file()


def test_another_environment_tries_itself(quick_compiler, cache):
    quick_compiler.fail_at("compile psa_mask_op.cc")
    with pytest.raises(OpUnavailableError):
        op_library._find_or_build()
    quick_compiler.fail_at("nothing")
    assert op_library._build_once(cache, elsewhere_but_real(op_build.make_plan())).is_file()


def elsewhere_but_real(plan):
    return dataclasses.replace(plan, compile_flags=(*plan.compile_flags, "-I/elsewhere"))


@pytest.mark.parametrize(
    ("text", "lack"),
    [
        ("echo 'g++: fatal error: Killed signal terminated program cc1plus'; exit 1", True),
        ("echo 'collect2: fatal error: ld terminated with signal 9 [Killed]'; exit 1", True),
        ("echo 'cc1plus: out of memory allocating 65536 bytes'; exit 1", True),
        ("echo 'op.cc: fatal error: error writing to /tmp/op.s: No space left on device'; exit 1", True),
        ("kill -9 $$", True),
        ("exit 137", True),
        ("echo 'op.cc:1:1: error: no such header'; exit 1", False),
        ("exit 1", False),
    ],
)
def test_want_of_memory_or_room_is_told_from_errors_of_the_sources(script, text, lack):
    with pytest.raises(op_build.BuildError) as raised:
        op_build._run([str(script("compiler", text))])
    assert isinstance(raised.value, op_build.LackError) == lack


@pytest.mark.parametrize("step", ["compile psa_mask_kernel_gpu.cc", "compile psa_mask_op.cc", "link psa_mask_op.cc.o"])
def test_compiler_killed_for_memory_leaves_no_library_and_is_tried_again_later(quick_compiler, cache, step):
    quick_compiler.fail_at(step, KILLED)
    with pytest.raises(OpUnavailableError, match="again after 60 minutes, or when that file is deleted"):
        op_library._find_or_build()
    assert not list(cache.glob("*.so"))
    calls = quick_compiler.count("stamp.cc.o"), quick_compiler.count("psa_mask_kernel_gpu.cc")
    with pytest.raises(OpUnavailableError, match="quick failed with status 1: g.*Killed signal"):
        op_library._find_or_build()
    assert (quick_compiler.count("stamp.cc.o"), quick_compiler.count("psa_mask_kernel_gpu.cc")) == calls
    (failure,) = cache.glob("*.failure")
    os.utime(failure, (0, 0))
    quick_compiler.fail_at("nothing")
    assert op_library._find_or_build().is_file()
    assert not failure.exists()


def test_source_that_lacked_memory_beside_the_others_is_compiled_alone(quick_compiler, tmp_path):
    once = f"open({str(tmp_path / 'first')!r}, 'x').close(); {KILLED}"
    quick_compiler.fail_at("compile psa_mask_kernel_gpu.cc", f"try:\n {once}\nexcept FileExistsError:\n pass")
    op_build.build(op_build.make_plan(), tmp_path / "op.so")
    assert quick_compiler.count("psa_mask_kernel_gpu.cc") == 2


def test_compiler_that_does_not_end_is_no_lasting_failure(monkeypatch, script):
    monkeypatch.setattr(op_build, "_LONGEST_COMPILATION", 0.2)
    with pytest.raises(op_build.LackError, match="compiler did not end within 0.2 seconds"):
        op_build._run([str(script("compiler", "exec sleep 60"))])


def test_compiler_may_write_in_any_encoding(script, cache, monkeypatch):
    compiler = script("compiler", r"printf 'op.cc:1: error: \344\366\374\n'; exit 1")
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(OpUnavailableError, match="status 1: op.cc:1: error: \ufffd\ufffd\ufffd"):
        op_library._find_or_build()


def test_file_that_is_no_program_is_named(script, cache, monkeypatch):
    compiler = script("compiler", "")
    compiler.write_bytes(b"\x7fELF")
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(OpUnavailableError, match="compiler cannot be run: .*Exec format error"):
        op_library._find_or_build()


def test_source_that_fails_leaves_no_library(quick_compiler, tmp_path):
    for step in ("compile psa_mask_kernel_cpu.cc", "compile psa_mask_launch.cc", "link psa_mask_op.cc.o"):
        quick_compiler.fail_at(step)
        with pytest.raises(op_build.BuildError, match=f"fatal error: cannot {step}"):
            op_build.build(op_build.make_plan(), tmp_path / "op.so")
        assert not (tmp_path / "op.so").exists()
