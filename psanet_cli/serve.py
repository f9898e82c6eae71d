"""`psanet serve`: the embedded model server."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import app


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
    batch_size: Annotated[int, typer.Option(help="Most images of one call that joins waiting requests.")] = 4,
    max_concurrent: Annotated[int, typer.Option(help="More requests at the same time are refused (503).")] = 64,
    max_request_mb: Annotated[float, typer.Option(help="Larger requests are refused (413).")] = 32,
    cors: Annotated[bool, typer.Option("--cors", help="Let browser pages of other origins use the REST API.")] = False,
):
    """Serve a model over TensorFlow Serving's REST and gRPC protocols, with a page to try it in a browser.

    This server is for trying a model, for tests, and for machines without Docker. Production belongs to
    TensorFlow Serving's own tensorflow_model_server, which reads the same folder and answers the same requests;
    export/ has ready deployment files.

    Example: psanet serve models/psanet --rest-port 8501 --grpc-port 8500
    """
    from psanet_tf.serving.server.server import Server

    server = Server(
        model,
        name=name,
        host=host,
        rest_port=rest_port,
        grpc_port=grpc_port,
        latest_versions=latest,
        labels=_labels(label or []),
        poll_seconds=poll_seconds,
        max_batch_size=batch_size,
        max_concurrent_requests=max_concurrent,
        max_request_bytes=int(max_request_mb * 2**20),
        cors=cors,
        on_change=_say,
    )
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with server:
        shown = f"[{host}]" if ":" in host else host
        address = f"{shown}:{server.rest_port}"
        print(f"page:  http://{address}/", flush=True)
        print(f"REST:  http://{address}/v1/models/{server.versions.name}:predict", flush=True)
        print(f"gRPC:  grpc://{shown}:{server.grpc_port}/{server.versions.name}", flush=True)
        print(
            "for trying and tests; in production use tensorflow_model_server (see export/). Ctrl-C stops.", flush=True
        )
        if not server.versions.wait_until_available(timeout=0):
            print(f"waiting for a version that can be loaded in {model} ...", flush=True)
        stopped.wait()
    print("stopped", flush=True)


def _labels(items):
    labels = {}
    for item in items:
        name, equals, version = item.partition("=")
        if not name or not equals or not version.isdecimal():
            raise ValueError(f"--label must look like stable=3, got {item!r}")
        labels[name] = int(version)
    return labels


def _say(status):
    reason = f": {status.error_message}" if status.error_message else ""
    print(f"version {status.version}: {status.state}{reason}", flush=True)
