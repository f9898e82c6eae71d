"""`make test-matrix`: the tests that depend on TensorFlow, beside every version that the package is for.

Each version, a lane, has a virtual environment of its own in .lanes and its packages pinned in constraints/ (2.20, the
version of `make test`, in constraints.txt). A lane whose Pythons are not on this machine is skipped, and it is said;
the exit status is 1 if a lane failed. The rows of the lanes that ran are put into the table in README.md.

    python tests/version_matrix.py            # all lanes, as many at once as there are processors
    python tests/version_matrix.py 2.15 2.21  # some
"""

import concurrent.futures
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LANES_FOLDER = ROOT / ".lanes"

# What every TensorFlow has to pass. The kernels of the op and their build, which are the same everywhere, are left to
# `make test`; here the op is built, loaded and compared.
OPS = ("tests/ops", "tests/custom_op/test_op_in_tensorflow.py")
# Without the further sizes and depths that `any_keras` marks.
NETWORKS = ("-m", "not any_keras", "tests/layers", "tests/models", "tests/weights", "tests/test_keras_api.py")
# Under TF_USE_LEGACY_KERAS; which of their tests, tests/conftest.py says.
LEGACY = ("tests/ops/test_exporting.py", "tests/layers", "tests/models/test_psanet.py", "tests/test_keras_api.py")
# What stands for training, evaluation and serving.
KERAS_3 = (
    "tests/training/test_golden_training.py",
    "tests/training/test_distribution.py",
    "tests/training/test_optimizers.py",
    "tests/evaluation/test_scale_end_to_end.py",
    "tests/serving/test_export.py",
)

ADDONS = ("tests/addons",)

_TABLE = re.compile(r"(<!-- versions: made by make test-matrix -->\n)(.*?)(<!-- end of versions -->)", re.DOTALL)
_COLUMNS = ("compiled op", "ops", "layers, models, weights", "training, evaluation, export", "legacy Keras", "addons")
_ABSENT = {"training, evaluation, export": "need Keras 3", "legacy Keras": "is its Keras", "addons": "end at 2.15"}
_VERSIONS = """
import importlib.metadata, platform, keras
try:
    addons = ", addons " + importlib.metadata.version("tensorflow-addons")
except importlib.metadata.PackageNotFoundError:
    addons = ""
print(importlib.metadata.version("tensorflow") + addons, keras.__version__, platform.python_version(), sep="|")
"""

_installing = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Lane:
    """A version of TensorFlow and what it is tested with.

    Attributes:
        name: its minor version.
        pythons: those that its pinned packages are for, in order of preference.
        extras: of the package that are installed.
        packages: what is installed besides the package and what its tests need.
        keras: major version of the Keras that belongs to it.
    """

    name: str
    pythons: tuple[str, ...]
    extras: tuple[str, ...] = ("serving",)
    packages: tuple[str, ...] = ("tf_keras",)
    keras: int = 3

    @property
    def constraints(self) -> Path:
        own = ROOT / "constraints" / f"{self.name}.txt"
        return own if own.is_file() else ROOT / "constraints.txt"

    @property
    def groups(self) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
        """What is tested -> (pytest's arguments, environment)."""
        groups = {"ops": (OPS, {}), "layers, models, weights": (NETWORKS, {})}
        if self.keras == 3:
            groups["legacy Keras"] = (LEGACY, {"TF_USE_LEGACY_KERAS": "1"})
            groups["training, evaluation, export"] = (KERAS_3, {})
        if "addons" in self.extras:
            groups["addons"] = (ADDONS, {})
        return groups


LANES = (
    Lane("2.15", ("3.10", "3.11"), ("serving", "addons"), (), keras=2),
    Lane("2.18", ("3.11", "3.12")),
    Lane("2.20", ("3.13", "3.12", "3.11")),
    Lane("2.21", ("3.12", "3.13", "3.11")),
)


class LaneRun:
    """One lane on this machine: makes its environment, runs its tests, keeps what they print in a log."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.folder = LANES_FOLDER / lane.name
        self.log = LANES_FOLDER / f"{lane.name}.log"
        self.python = self.folder / "bin" / "python"
        self.versions = ()  # TensorFlow, Keras, Python
        self.passed = {}  # step -> whether
        self.failure = ""  # the steps that failed
        self.skipped = None  # why it did not run
        self.cpu_seconds = 0.0

    def run(self) -> "LaneRun":
        """Everything, to the first failure of the installation or the op; the groups of tests one after the other."""
        started = time.monotonic()
        interpreter = find_python(self.lane.pythons)
        if interpreter is None:
            wanted = " or ".join(self.lane.pythons)
            self.skipped = f"no Python {wanted} on this machine (looked on PATH and in ~/.pyenv/versions)"
            self._say(f"SKIPPED: {self.skipped}")
            return self
        self.log.write_text("")
        for name, step in (("installation", lambda: self._install(interpreter)), ("compiled op", self._load_op)):
            self.passed[name] = step()
            if not self.passed[name]:
                break
        else:
            for name, (arguments, environment) in self.lane.groups.items():
                command = [self.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
                self.passed[name] = self._call(command, environment)
        self.failure = "; ".join(name for name, passed in self.passed.items() if not passed)
        self._say(
            f"{'FAILED: ' + self.failure if self.failure else 'passed'} "
            f"({time.monotonic() - started:.0f} s, {self.cpu_seconds:.0f} s of CPU; {self.log.relative_to(ROOT)})"
        )
        return self

    def row(self) -> str:
        """Of the table."""
        tensorflow, keras, python = self.versions
        has = ("compiled op", *self.lane.groups)
        marks = [
            ("passed" if self.passed.get(name) else "FAILED") if name in has else _ABSENT[name] for name in _COLUMNS
        ]
        return f"| {' | '.join([tensorflow, keras, python.rpartition('.')[0], *marks])} |"

    def _install(self, interpreter):
        mark = self.folder / "installed"
        needs = [self.lane.constraints, ROOT / "pyproject.toml", ROOT / "setup.py"]
        # One at a time: an editable installation writes into the source tree.
        with _installing:
            if not mark.is_file() or any(path.stat().st_mtime > mark.stat().st_mtime for path in needs):
                self._say(f"installing with {interpreter}")
                shutil.rmtree(self.folder, ignore_errors=True)
                pip = [self.python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
                packages = [
                    "--editable",
                    f"{ROOT}[{','.join(self.lane.extras)}]",
                    "pytest",
                    "hypothesis",
                    *self.lane.packages,
                ]
                commands = (
                    [interpreter, "-m", "venv", self.folder],
                    [*pip, "install", "--no-compile", "--constraint", self.lane.constraints, *packages],
                )
                if not all(self._call(command) for command in commands):
                    return False
                mark.touch()
        if not self._call([self.python, "-m", "pip", "check"]):
            return False
        result = subprocess.run([self.python, "-c", _VERSIONS], capture_output=True, text=True, check=True, cwd=ROOT)
        self.versions = tuple(result.stdout.strip().splitlines()[-1].split("|"))
        self._say(f"TensorFlow {self.versions[0]}, Keras {self.versions[1]}, Python {self.versions[2]}: testing")
        return True

    def _load_op(self):
        """Tests skip where there is no op; here it has to be there."""
        return self._call([self.python, "-c", "from psanet_tf.ops import load_op_library; load_op_library()"])

    def _call(self, command, environment=None):
        """Whether a command succeeds; its output goes to the log, its CPU time to the lane's."""
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **(environment or {})}
        with open(self.log, "a") as log:
            print("$", *command, file=log, flush=True)
            process = subprocess.Popen(
                list(map(str, command)), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_seconds += usage.ru_utime + usage.ru_stime
        return process.returncode == 0

    def _say(self, text):
        print(f"[{self.lane.name}] {text}", flush=True)


def find_python(versions: tuple[str, ...]) -> str | None:
    """The first of these Pythons ("3.11") that is on this machine and runs; on PATH, or among those of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in versions:
        on_path = shutil.which(f"python{version}")
        of_pyenv = [str(folder / "bin" / "python") for folder in sorted(pyenv.glob(f"{version}.*"), reverse=True)]
        this = [sys.executable] if sys.version_info[:2] == tuple(map(int, version.split("."))) else []
        for path in [*([on_path] if on_path else []), *of_pyenv, *this]:
            program = "import sys, ensurepip; print('%d.%d' % sys.version_info[:2])"
            try:
                # pyenv puts stand-ins on PATH that fail where their version is not chosen.
                found = subprocess.run([path, "-c", program], capture_output=True, text=True, check=False)
            except OSError:
                continue
            if found.returncode == 0 and found.stdout.strip() == version:
                return path
    return None


def main(names: list[str]) -> int:
    """Runs the lanes of these names, all for none; exit status 1 if one failed, 2 if there is none of a name."""
    unknown = [name for name in names if name not in [lane.name for lane in LANES]]
    if unknown:
        print(f"no lane {unknown[0]}: there are {', '.join(lane.name for lane in LANES)}", file=sys.stderr)
        return 2
    LANES_FOLDER.mkdir(exist_ok=True)
    lanes = [lane for lane in LANES if not names or lane.name in names]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = list(pool.map(lambda lane: LaneRun(lane).run(), lanes))
    failed = [run for run in runs if run.failure]
    for run in failed:
        print(f"\n[{run.lane.name}] the end of {run.log.relative_to(ROOT)}:")
        print("\n".join(run.log.read_text(errors="replace").splitlines()[-80:]))
    rows = {run.lane.name: run.row() for run in runs if run.versions}
    print("", *_table(rows), sep="\n")
    for run in runs:
        if run.skipped:
            print(f"TensorFlow {run.lane.name} was not tested: {run.skipped}")
    _write_rows(rows)
    print(f"\n{len([run for run in runs if not run.failure and not run.skipped])} lanes passed, {len(failed)} failed")
    return 1 if failed else 0


def _table(rows):
    """Lines of the table, in the order of the lanes."""
    header = f"| {' | '.join(['TensorFlow', 'Keras', 'Python', *_COLUMNS])} |"
    return [header, re.sub("[^|]+", " --- ", header), *(rows[lane.name] for lane in LANES if lane.name in rows)]


def _write_rows(rows):
    """Puts the rows of the lanes that ran into the README's table; those of the others stay."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    (table,) = _TABLE.finditer(text)
    earlier = {row[1]: row[0] for row in re.finditer(r"^\| (\d+\.\d+)\..*$", table[2], re.MULTILINE)}
    lines = "\n".join(_table(earlier | rows)) + "\n"
    changed = text[: table.end(1)] + lines + text[table.start(3) :]
    if changed != text:
        readme.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
