"""The proxy's configuration in Debian's nginx, before the embedded server."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from typer.testing import CliRunner

from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.errors import ServingError
from psanet_tf.serving import Client

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
CONFIGURATION = Path(__file__).parents[2] / "export" / "nginx" / "psanet.conf"

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(NGINX is None, reason="no nginx here (Debian's package: nginx-light)"),
]

AROUND = """
daemon off; master_process off; pid {folder}/pid; error_log stderr warn;
events {{}}
http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; include {folder}/psanet.conf; }}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def proxy(server, certificate, tmp_path_factory):
    """(host and port, PEM of its authority): the proxy with the tokens s3cret and other before the small network."""
    folder = tmp_path_factory.mktemp("nginx")
    port = free_port()
    text = CONFIGURATION.read_text()
    for old, new in (
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("127.0.0.1:8501", f"127.0.0.1:{server.rest_port}"),
        ("127.0.0.1:8500", f"127.0.0.1:{server.grpc_port}"),
        ("/etc/nginx/psanet/", f"{folder}/"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "psanet.conf").write_text(text)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder))
    (folder / "tokens").write_text('"Bearer s3cret" alice;\n"Bearer other" bob;\n')
    for name, path in zip(("certificate.pem", "key.pem"), certificate, strict=True):
        shutil.copy(path, folder / name)
    command = [NGINX, "-p", folder, "-c", folder / "nginx.conf"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 30
    while True:
        assert process.poll() is None, process.stderr.read()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert time.monotonic() < end
        time.sleep(0.05)
    yield f"localhost:{port}", certificate[0]
    process.terminate()
    process.wait(20)


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_with_a_token_both_protocols_answer(proxy, window, scheme):
    address, ca = proxy
    path = "psanet" if scheme == "grpcs" else "v1/models/psanet/versions/1"
    image = made_image((50, 71), seed=4)
    with Client(f"{scheme}://{address}/{path}", token="s3cret", ca=ca) as client:
        labels = client.labels(image)
    assert (labels == window.labels(image)).mean() >= 0.999


@pytest.mark.parametrize("token", [None, "wrong", "s3cret2"])
@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_without_one_nobody_does(proxy, scheme, token):
    address, ca = proxy
    with Client(f"{scheme}://{address}/psanet", token=token, ca=ca, retries=0) as client:
        with pytest.raises(ServingError) as caught:
            client.metadata()
    assert caught.value.code == "UNAUTHENTICATED"


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_a_certificate_of_nobody_known_is_refused(proxy, scheme):
    address, _ = proxy
    with Client(f"{scheme}://{address}/psanet", token="s3cret", retries=0, timeout=20) as client:
        with pytest.raises(ServingError) as caught:
            client.metadata()
    assert caught.value.code in ("UNAUTHENTICATED", "UNAVAILABLE")


def test_what_is_nobodys_business(proxy):
    address, ca = proxy
    for path in ("/", "/monitoring/prometheus/metrics", "/page.js"):
        answer = requests.get(f"https://{address}{path}", headers={"Authorization": "Bearer s3cret"}, verify=str(ca))
        assert answer.status_code == 404


def test_predict_asks_with_a_token(proxy, tmp_path):
    from PIL import Image

    from psanet_cli.app import _register, app

    _register()
    address, ca = proxy
    Image.fromarray(made_image((40, 50))).save(tmp_path / "a.png")
    (tmp_path / "token").write_text("s3cret\n")
    options = ["--server", f"grpcs://{address}/psanet", "--ca", ca, "--token-file", tmp_path / "token"]
    result = CliRunner().invoke(
        app, [str(word) for word in ("predict", tmp_path / "a.png", "--out", tmp_path / "out", *options)]
    )
    assert result.exit_code == 0, result.output
    assert np.asarray(Image.open(tmp_path / "out" / "labels" / "a.png")).shape == (40, 50)
