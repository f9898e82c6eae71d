"""`psanet serve`: the embedded model server."""

import contextlib
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import app

# Beside the connections of both protocols, what a Python process with TensorFlow has open.
_OPEN_FILES = 4096


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(help="Folder of a model that `psanet export` wrote, with its versions.")],
    name: Annotated[str | None, typer.Option(help="The model's name in requests; default: the folder's name.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this machine alone.")] = "127.0.0.1",
    rest_port: Annotated[int, typer.Option(help="Port of the REST API and the browser page.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC services.")] = 8500,
    latest: Annotated[int, typer.Option(help="How many of the newest versions are kept loaded.")] = 1,
    label: Annotated[
        list[str] | None, typer.Option(metavar="LABEL=VERSION", help="Name for a version, e.g. stable=3; repeatable.")
    ] = None,
    poll_seconds: Annotated[float, typer.Option(help="How often the folder is looked at for versions.")] = 1.0,
    max_concurrent: Annotated[int, typer.Option(help="More requests at the same time are refused (503).")] = 64,
    max_request_mb: Annotated[float, typer.Option(help="Larger requests are refused (413).")] = 32,
    drain_seconds: Annotated[
        float, typer.Option(help="When told to stop (SIGTERM, Ctrl-C), wait so long for the requests under way.")
    ] = 30,
    certificate: Annotated[
        Path | None, typer.Option(help="Certificate with its chain (PEM), for TLS on both protocols.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's private key (PEM).")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a token that requests must have: `authorization: Bearer TOKEN`.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name under which a proxy is asked; repeatable.")
    ] = None,
    path_prefix: Annotated[
        str, typer.Option(help="What all paths of REST API and page begin with, e.g. /psanet behind a proxy.")
    ] = "",
    cors: Annotated[bool, typer.Option("--cors", help="Let browser pages of other origins use the REST API.")] = False,
    access_log: Annotated[bool, typer.Option("--access-log", help="Write a line for every request.")] = False,
):
    """Serve a model over TensorFlow Serving's REST and gRPC protocols, with a page to try it in a browser.

    This server is for trying a model, for tests, and for machines without Docker. Production belongs to
    TensorFlow Serving's own tensorflow_model_server, which reads the same folder and answers the same requests;
    export/ has ready deployment files.

    Example: psanet serve models/psanet --rest-port 8501 --grpc-port 8500
    """
    from psanet_tf.serving.addresses import host_and_port, is_loopback
    from psanet_tf.serving.server.server import Server

    labels = _labels(label or [])
    server = Server(
        model,
        name=name,
        host=host,
        rest_port=rest_port,
        grpc_port=grpc_port,
        latest_versions=latest,
        labels=labels,
        poll_seconds=poll_seconds,
        max_concurrent_requests=max_concurrent,
        max_request_bytes=int(max_request_mb * 2**20),
        drain_seconds=drain_seconds,
        certificate=certificate,
        key=key,
        token_file=token_file,
        allowed_hosts=allowed_host or [],
        cors=cors,
        path_prefix=path_prefix,
        on_change=_say,
    )
    _allow_open_files()
    if access_log:
        _write_access_log()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with server:
        tls = "" if certificate is None else "s"
        rest = f"http{tls}://{host_and_port(host, server.rest_port)}{path_prefix}"
        print(f"page:  {rest}/", flush=True)
        print(f"REST:  {rest}/v1/models/{server.versions.name}:predict", flush=True)
        print(f"gRPC:  grpc{tls}://{host_and_port(host, server.grpc_port)}/{server.versions.name}", flush=True)
        print(
            "for trying and tests; in production use tensorflow_model_server (see export/). Ctrl-C stops.", flush=True
        )
        if token_file is not None and certificate is None and not is_loopback(host):
            print("note: tokens come here as anybody on the way can read them; --certificate and --key", flush=True)
        if not server.versions.wait_until_available(timeout=0):
            print(f"waiting for a version that can be loaded in {model} ...", flush=True)
        for given, version in labels.items():
            if version not in server.versions.available:
                print(f"label {given}: waiting for version {version}, which is not loaded", flush=True)
        stopped.wait()
        print(f"stopping, within {drain_seconds:g} seconds ...", flush=True)
    print("stopped", flush=True)


def _labels(items):
    labels = {}
    for item in items:
        name, equals, version = item.partition("=")
        if not name or not equals or not version.isdecimal():
            raise ValueError(f"--label must look like stable=3, got {item!r}")
        if name in labels:
            raise ValueError(f"--label {name} is given twice: {labels[name]} and {version}")
        labels[name] = int(version)
    return labels


def _say(status):
    reason = f": {status.error_message}" if status.error_message else ""
    print(f"version {status.version}: {status.state}{reason}", flush=True)


def _allow_open_files():
    """Systems often allow 1024, which connections alone can use up."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on Windows; not everywhere allowed
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _write_access_log():
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("psanet_tf.serving.access")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
