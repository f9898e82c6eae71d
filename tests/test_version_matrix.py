"""The runner of `make test-matrix`: what it says of lanes that cannot run, fail or pass."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("version_matrix", ROOT / "tests" / "version_matrix.py")
matrix = importlib.util.module_from_spec(_SPEC)
sys.modules["version_matrix"] = matrix  # where dataclasses look for it
_SPEC.loader.exec_module(matrix)

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def pins(path):
    return dict(line.split("==") for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tree of its own, with a README that has a table of versions."""
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    monkeypatch.setattr(matrix, "LANES_FOLDER", tmp_path / ".lanes")
    (tmp_path / "README.md").write_text(
        "before\n<!-- versions: made by make test-matrix -->\n| 2.19.1 | earlier |\n| 2.15.9 | earlier |\n"
        "<!-- end of versions -->\nafter\n"
    )
    return tmp_path


@pytest.mark.parametrize("lane", matrix.LANES, ids=lambda lane: lane.name)
def test_every_lane_pins_its_tensorflow_and_its_tests_are_there(lane):
    versions = {name.lower().replace("_", "-"): version for name, version in pins(lane.constraints).items()}
    assert versions["tensorflow"].startswith(f"{lane.name}.")
    assert int(versions["keras"].partition(".")[0]) == lane.keras
    assert ("tensorflow-addons" in versions) == ("addons" in lane.extras)
    assert {"pytest", "hypothesis", *(package.replace("_", "-") for package in lane.packages)} <= set(versions)
    for arguments, _ in lane.groups.values():
        files = [argument for argument in arguments if argument.startswith("tests/")]
        assert files
        assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_package_admits_every_lane_and_the_readme_has_rows_of_what_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (need,) = (need for need in project["dependencies"] if need.startswith("tensorflow"))
    low, high = map(int, re.fullmatch(r"tensorflow>=2\.(\d+),<2\.(\d+)", need).groups())
    minors = [int(lane.name.partition(".")[2]) for lane in matrix.LANES]
    assert (min(minors), max(minors)) == (low, high - 1)
    found = re.findall(r"^\| (2\.\d+\.\d+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(found) <= {pins(lane.constraints)["tensorflow"] for lane in matrix.LANES}


def test_a_python_is_found_where_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert matrix.find_python(("3.1", HERE)) == sys.executable  # none else
    stand_in = tmp_path / f"python{HERE}"
    stand_in.write_text("#!/bin/sh\nexit 127\n")
    stand_in.chmod(0o755)
    real = tmp_path / "pyenv" / "versions" / f"{HERE}.1" / "bin" / "python"
    real.parent.mkdir(parents=True)
    os.symlink(sys.executable, real)
    assert matrix.find_python((HERE,)) == str(real)
    assert matrix.find_python(("3.1", "2.9")) is None


def test_a_lane_without_its_python_is_skipped_in_words(folder, monkeypatch, capsys):
    monkeypatch.setattr(matrix, "LANES", (matrix.Lane("2.15", ("3.1", "2.9")),))
    assert matrix.main([]) == 0
    output = capsys.readouterr().out
    assert "[2.15] SKIPPED: no Python 3.1 or 2.9 on this machine" in output
    assert "TensorFlow 2.15 was not tested: no Python 3.1 or 2.9" in output
    assert "\n0 lanes passed, 0 failed" in output
    assert "\n| 2.15.9 | earlier |\n" in (folder / "README.md").read_text(encoding="utf-8")


def of_lane(fails):
    """In place of commands: notes them; those whose text holds one of `fails` fail."""
    called = []

    def call(self, command, environment=None):
        text = " ".join(map(str, command))
        called.append((text, environment or {}))
        with open(self.log, "a") as log:
            print(f"ran {text}", file=log)
        return not any(part in text for part in fails)

    return called, call


@pytest.fixture
def lanes(monkeypatch):
    def install(self, interpreter):
        self.versions = (f"{self.lane.name}.0", "3.1.4", "3.13.0")
        return self._call(["install", self.lane.name])

    monkeypatch.setattr(matrix.LaneRun, "_install", install)
    all_lanes = (
        matrix.Lane("2.15", (HERE,), ("addons",), keras=2),
        matrix.Lane("2.19", (HERE,)),
        matrix.Lane("2.20", (HERE,)),
    )
    monkeypatch.setattr(matrix, "LANES", all_lanes)


def test_rows_of_lanes_that_ran_are_put_into_the_readmes_table(folder, lanes, monkeypatch, capsys):
    called, call = of_lane(fails=())
    monkeypatch.setattr(matrix.LaneRun, "_call", call)
    assert matrix.main(["2.15", "2.20"]) == 0
    first, second = (
        "| 2.15.0 | 3.1.4 | 3.13 | passed | passed | passed | need Keras 3 | is its Keras | passed |",
        "| 2.20.0 | 3.1.4 | 3.13 | passed | passed | passed | passed | passed | end at 2.15 |",
    )
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- versions: made by make test-matrix -->\n| TensorFlow | Keras |")
    assert text.endswith(f"| --- |\n{first}\n| 2.19.1 | earlier |\n{second}\n<!-- end of versions -->\nafter\n")
    assert f"{first}\n{second}\n" in capsys.readouterr().out
    legacy = [environment.get("TF_USE_LEGACY_KERAS") for text, environment in called if "tests/layers" in text]
    assert (len(legacy), legacy.count("1")) == (3, 1)
    assert sum("load_op_library()" in text for text, _ in called) == 2


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        ("install 2.20", "FAILED: installation"),
        ("load_op_library", "FAILED: compiled op"),
        ("tests/weights", "FAILED: layers, models, weights"),
        ("tests/serving", "FAILED: training, evaluation, export"),
    ],
)
def test_a_lane_that_fails_is_exit_status_1_and_its_log_is_shown(folder, lanes, monkeypatch, capsys, fails, words):
    _, call = of_lane([fails])
    monkeypatch.setattr(matrix.LaneRun, "_call", call)
    assert matrix.main(["2.20"]) == 1
    output = capsys.readouterr().out
    assert f"[2.20] {words} (" in output
    assert "[2.20] the end of .lanes/2.20.log:\nran " in output
    assert "0 lanes passed, 1 failed" in output
    assert re.search(r"\n\| 2\.20\.0 \|.* FAILED \|", (folder / "README.md").read_text(encoding="utf-8"))


def test_unknown_lane(capsys):
    assert matrix.main(["1.15"]) == 2
    assert "no lane 1.15: there are 2.15, " in capsys.readouterr().err
