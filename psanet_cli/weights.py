"""`psanet weights`: published weights by name."""

from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import WEIGHTS, app

weights = typer.Typer(
    help="Published weights by name: list them, see what is known about them, fetch, convert and check them."
)
app.add_typer(weights, name="weights", no_args_is_help=True)

_NAME = typer.Argument(metavar="NAME", help="As psanet weights list shows it.")


@weights.command("list")
def list_weights(
    pattern: Annotated[str, typer.Argument(help="Only names that hold this text.")] = "",
    backbones: Annotated[bool, typer.Option("--backbones", help="Only backbones trained on ImageNet.")] = False,
):
    """Show all published weights that are known, and which of them have been fetched."""
    from rich.console import Console
    from rich.table import Table

    from psanet_tf.weights.fetch import cached_file
    from psanet_tf.weights.registry import published_weights

    entries = [entry for name, entry in published_weights().items() if pattern in name]
    entries = [entry for entry in entries if entry.is_backbone or not backbones]
    if not entries:
        raise ValueError(f"no published weights have {pattern!r} in their name")
    table = Table("name", "ResNet", "dataset", "authors' scores, %", "fetched", box=None, pad_edge=False)
    for entry in entries:
        scores = ", ".join(f"{name} {value:.2f}" for name, value in entry.scores.items())
        fetched = "yes" if cached_file(entry.name).is_file() else ""
        table.add_row(entry.name, str(entry.depth), entry.dataset, scores, fetched)
    # Nothing is cut off where the output is no terminal.
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    console.print(table)


@weights.command()
def show(name: Annotated[str, _NAME]):
    """Show all that is known about published weights."""
    from psanet_tf.weights.fetch import cached_file
    from psanet_tf.weights.registry import find_published

    entry = find_published(name)
    lines = {
        "name": entry.name,
        "address": entry.url,
        "checksum": entry.checksum,
        "network": f"ResNet-{entry.depth}, stem {entry.stem}, names as in {entry.naming}",
        "trained on": entry.dataset,
        "arguments": _pairs(entry.model),
        "prediction": _pairs(entry.evaluate),
        "scores (%)": _pairs(entry.scores),
        "licence": entry.licence,
        "source": entry.source,
        "file": f"{cached_file(name)}{'' if cached_file(name).is_file() else ' (not fetched yet)'}",
    }
    for title, text in lines.items():
        if text:
            print(f"{title:<12}{text}")


@weights.command()
def fetch(name: Annotated[str, _NAME]):
    """Fetch published weights, check them, and keep them in the cache folder (PSANET_CACHE_DIR names another)."""
    from psanet_tf.weights.fetch import fetch_weights

    print(fetch_weights(name))


@weights.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=WEIGHTS)],
    out: Annotated[Path, typer.Option(help="The .keras file to write.")],
    config: Annotated[Path | None, typer.Option(help="Configuration, where the weights do not tell theirs.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. evaluate.flip=true.")
    ] = None,
):
    """Write a .keras file that carries classes, colours, preprocessing and prediction protocol along.

    Example: psanet weights convert mmseg/psanet_r50-d8_4xb4-80k_ade20k-512x512 --out ade.keras
    """
    from psanet_tf.weights.conversion import convert_weights

    trained = convert_weights(source, out, config, overrides or ())
    if trained.info is None:
        print("nothing names its classes: they will be called class 0, class 1, ...")
    else:
        print(
            f"classes: {trained.info.num_classes} of {trained.info.name}, the first is {trained.info.class_names[0]!r}"
        )
    print(f"protocol: {trained.evaluate.protocol if trained.evaluate else 'not known, semseg will be taken'}")
    print(out)


@weights.command()
def check(name: Annotated[str, _NAME]):
    """Fetch published weights, and see whether every tensor finds its place in their network."""
    from psanet_tf.weights.conversion import check_published

    print(check_published(name))


def _pairs(values):
    return ", ".join(f"{key} {value}" for key, value in values.items())
