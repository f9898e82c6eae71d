"""The compiled op's part of the build; everything else is declared in pyproject.toml.

The C++ sources of custom_ops/ travel inside the package, so that an installed package can compile the op at first
use. Where TensorFlow and a compiler are there at installation, the op is compiled now.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "custom_ops"
LIBRARY = Path("psanet_tf") / "ops" / "libpsa_mask.so"


class BuildWithOp(build_py):
    """Adds the op's sources, and its library if it can be built, to the package."""

    def run(self):
        super().run()
        # An editable install uses the source tree and compiles at first use, after every change of the sources.
        if self.editable_mode:
            return
        for source, target in self._sources():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        if self.distribution.op_is_built:
            shutil.copyfile(ROOT / "build" / LIBRARY.name, Path(self.build_lib) / LIBRARY)

    def get_outputs(self, include_bytecode=True):
        outputs = super().get_outputs(include_bytecode)
        if not self.editable_mode:
            outputs += [str(target) for _, target in self._sources()]
            if self.distribution.op_is_built:
                outputs.append(str(Path(self.build_lib) / LIBRARY))
        return outputs

    def _sources(self):
        folder = Path(self.build_lib) / "psanet_tf" / SOURCES.name
        return [(source, folder / source.name) for source in sorted(SOURCES.glob("*.cc")) + sorted(SOURCES.glob("*.h"))]


class DistributionWithOp(Distribution):
    """Knows whether the op has been built: a wheel with it is for one platform, one without is for all."""

    _op_is_built = None

    @property
    def op_is_built(self):
        if self._op_is_built is None:
            self._op_is_built = build_op()
        return self._op_is_built

    def has_ext_modules(self):
        # Asked by bdist_wheel alone; nothing is compiled for an sdist or an editable install.
        building_wheel = "bdist_wheel" in self.commands
        return super().has_ext_modules() or (building_wheel and self.op_is_built)


def build_op():
    """True if build/libpsa_mask.so could be compiled for the TensorFlow of the environment that is installed into.

    pip builds in an environment of its own, without TensorFlow; Python in isolated mode (-I) leaves that and sees
    the target environment's packages.
    """
    (ROOT / "build").mkdir(exist_ok=True)
    builder = ROOT / "psanet_tf" / "ops" / "op_build.py"
    command = [sys.executable, "-I", str(builder), str(ROOT / "build" / LIBRARY.name)]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        print("the op will be compiled at first use, or stock TensorFlow ops be used", file=sys.stderr)
    return status == 0


setup(cmdclass={"build_py": BuildWithOp}, distclass=DistributionWithOp)
