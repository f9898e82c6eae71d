"""Downloads from a server on this machine that can be told to fail."""

import hashlib
import http.server
import threading

import numpy as np
import pytest

from psanet_tf.weights import download as module
from psanet_tf.weights.download import check_file, download

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT under every name; the server's attributes say what goes wrong."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        if self.path == "/moved.pth":
            self.send_response(302)
            self.send_header("Location", "/there/net.pth")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/missing.pth":
            self.send_error(404)
            return
        start = 0
        if server.ranges and self.headers.get("Range") and self.headers.get("If-Range") == server.tag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(CONTENT)
        self.wfile.write(CONTENT[start:cut])
        if cut < len(CONTENT):
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.cuts, server.tag, server.ranges = [], [], '"first"', True
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_file_comes_whole_and_once(server, tmp_path):
    target = tmp_path / "weights" / "net.pth"
    for _ in range(2):
        assert download(f"{server.url}/net.pth", target, f"sha256:{SHA256}") == target
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert leftovers(target.parent) == ["net.pth"]


def test_a_redirect_is_followed(server, tmp_path):
    download(f"{server.url}/moved.pth", tmp_path / "net.pth", f"sha256:{SHA256[:8]}")
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert [path for path, *_ in server.requests] == ["/moved.pth", "/there/net.pth"]


def test_a_cut_download_goes_on_where_it_was(server, tmp_path):
    block = module._BLOCK
    server.cuts = [block + 1000, 3 * block + 1000]
    download(f"{server.url}/net.pth", tmp_path / "net.pth", f"sha256:{SHA256}", pauses=(0, 0))
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in server.requests] == [None, f"bytes={block}-", f"bytes={3 * block}-"]
    assert leftovers(tmp_path) == ["net.pth"]


def test_a_later_call_goes_on_too_and_says_so_meanwhile(server, tmp_path):
    server.cuts = [200_000]
    with pytest.raises(
        OSError, match=r"cannot be fetched \(0\.2 MB have come and are kept\).* put it there: .*net.pth"
    ):
        download(f"{server.url}/net.pth", tmp_path / "net.pth", pauses=())
    assert not (tmp_path / "net.pth").exists()
    download(f"{server.url}/net.pth", tmp_path / "net.pth", f"sha256:{SHA256}", pauses=())
    assert server.requests[1][1] == f"bytes={200_000 // module._BLOCK * module._BLOCK}-"
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("change", [{"tag": '"second"'}, {"ranges": False}, {"tag": None}])
def test_no_half_of_another_file_is_kept(server, tmp_path, change):
    if change == {"tag": None}:
        server.tag = None
    server.cuts = [200_000]
    with pytest.raises(OSError, match="cannot be fetched"):
        download(f"{server.url}/net.pth", tmp_path / "net.pth", pauses=())
    for name, value in change.items():
        setattr(server, name, value)
    download(f"{server.url}/net.pth", tmp_path / "net.pth", pauses=())
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(
        ValueError, match=rf"net\.pth is not the file .* begins with {SHA256[:8]}, it should with 0{{8}}"
    ):
        download(f"{server.url}/net.pth", tmp_path / "net.pth", "sha256:00000000")
    assert leftovers(tmp_path) == []


def test_a_missing_file_is_named(server, tmp_path):
    with pytest.raises(OSError, match=r"missing\.pth cannot be fetched: the server answers 404 Not Found"):
        download(f"{server.url}/missing.pth", tmp_path / "net.pth", pauses=(0, 0))
    assert len(server.requests) == 1


def test_no_network_says_what_to_do(server, tmp_path):
    port = server.server_address[1]
    server.shutdown()
    server.server_close()
    message = (
        rf"http://127.0.0.1:{port}/net.pth cannot be fetched: there is no connection to the server. .*put it there:"
    )
    with pytest.raises(OSError, match=message):
        download(f"http://127.0.0.1:{port}/net.pth", tmp_path / "net.pth", pauses=(0,))


def test_no_room_is_said_before_anything_is_written(server, tmp_path, monkeypatch):
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match="has 0 MB left, 0 MB are needed: make room, or set PSANET_CACHE_DIR"):
        download(f"{server.url}/net.pth", tmp_path / "net.pth")
    assert not (tmp_path / "net.pth").exists()


def test_two_at_once_fetch_it_once(server, tmp_path):
    threads = [
        threading.Thread(target=download, args=(f"{server.url}/net.pth", tmp_path / "net.pth")) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_checksums(tmp_path):
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert check_file(tmp_path / "net.pth", f"sha256:{SHA256[:8].upper()}") == SHA256
    check_file(tmp_path / "net.pth", f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    for checksum in ("sha256:", "sha256:1234", "crc:12345678", SHA256):
        with pytest.raises(ValueError, match="a checksum must look like sha256:99fac37c"):
            check_file(tmp_path / "net.pth", checksum)
