"""What importing the package does, and what the command does without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import psanet_tf

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
