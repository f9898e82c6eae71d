"""A cache folder, and a server of files, for tests of weights that are fetched."""

import contextlib
import functools
import http.server
import threading

import pytest

from psanet_tf.ops import OpUnavailableError, load_op_library


@pytest.fixture
def cache(tmp_path, monkeypatch):
    # The compiled op's library is kept there, too: loaded before, it need not be built anew.
    with contextlib.suppress(OpUnavailableError):
        load_op_library()
    monkeypatch.setenv("PSANET_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def folder(tmp_path):
    """A folder, and the address under which it is served."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "served").mkdir()
    handler = functools.partial(Handler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield tmp_path / "served", f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
