"""`psanet serve`, as a user calls it: starts, says where it is, answers, and stops on Ctrl-C."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import tensorflow as tf
from typer.testing import CliRunner

from psanet_cli.app import _register, app


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    write_version(folder, 1)
    return folder


def write_version(folder, version):
    module = tf.Module()
    module.multiply = tf.function(lambda x: {"y": x * version}, [tf.TensorSpec([None], tf.float32, name="x")])
    hidden = folder / f".{version}"
    tf.saved_model.save(module, str(hidden), signatures={"serving_default": module.multiply})
    hidden.rename(folder / str(version))


def read_until(process, pattern, seconds=120):
    text, end = "", time.monotonic() + seconds
    while time.monotonic() < end:
        ready, _, _ = select.select([process.stdout], [], [], 1)
        if ready:
            text += os.read(process.stdout.fileno(), 65536).decode()
            if match := re.search(pattern, text):
                return match, text
        assert process.poll() is None, text
    raise AssertionError(f"{pattern!r} did not come: {text}")


def test_serving_until_interrupted(folder):
    command = [sys.executable, "-m", "psanet_cli", "serve", folder, "--rest-port", "0", "--grpc-port", "0"]
    command += ["--poll-seconds", "0.1", "--access-log"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        _, text = read_until(process, "Ctrl-C stops")
        assert "version 1: AVAILABLE" in text
        assert re.search(r"gRPC:  grpc://127\.0\.0\.1:\d+/toy", text)
        url = re.search(r"REST:  (\S+)", text)[1]
        assert requests.post(url, json={"instances": [3]}, timeout=30).json() == {"predictions": [3.0]}
        page = re.search(r"page:  (\S+)", text)[1]
        assert 'data-model="toy"' in requests.get(page, headers={"Accept": "text/html"}, timeout=30).text
        write_version(folder, 2)
        _, text = read_until(process, "version 2: AVAILABLE")
        assert re.search(r"127\.0\.0\.1 REST predict OK \d+\.\d ms", text)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_options_reach_the_server(folder, monkeypatch):
    _register()
    given = {}

    def server(model, **options):
        given.update(options, model=model)
        raise ValueError("that will do")

    monkeypatch.setattr("psanet_tf.serving.server.server.Server", server)
    options = {
        "--name": "a", "--host": "::1", "--rest-port": 1, "--grpc-port": 2, "--latest": 3, "--label": "b=4",
        "--poll-seconds": 5, "--max-concurrent": 6, "--max-request-mb": 0.5, "--drain-seconds": 7, "--certificate": "c",
        "--key": "d", "--token-file": "e", "--allowed-host": "f", "--path-prefix": "/g",
    }  # fmt: skip
    arguments = [str(part) for pair in options.items() for part in pair]
    result = CliRunner().invoke(app, ["serve", str(folder), *arguments, "--cors"])
    assert str(result.exception) == "that will do"
    del given["on_change"]
    assert given == {
        "model": folder, "name": "a", "host": "::1", "rest_port": 1, "grpc_port": 2, "latest_versions": 3,
        "labels": {"b": 4}, "poll_seconds": 5, "max_concurrent_requests": 6, "max_request_bytes": 2**19,
        "drain_seconds": 7, "certificate": Path("c"), "key": Path("d"), "token_file": Path("e"),
        "allowed_hosts": ["f"], "path_prefix": "/g", "cors": True,
    }  # fmt: skip


def test_help_says_what_it_is_for():
    _register()
    result = CliRunner().invoke(app, ["serve", "--help"])
    assert "Production belongs" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "is no folder"),
        (["toy", "--label", "stable"], "--label must look like stable=3, got 'stable'"),
        (["toy", "--label", "stable=1", "--label", "stable=2"], "--label stable is given twice: 1 and 2"),
        (["toy", "--latest", "0"], "latest_versions must be at least 1"),
        (["toy", "--max-concurrent", "0"], "max_concurrent_requests must be positive, got 0"),
    ],
)
def test_wrong_arguments(folder, monkeypatch, arguments, message):
    _register()
    monkeypatch.chdir(folder.parent)
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert isinstance(result.exception, ValueError | OSError)
    assert message in str(result.exception)
