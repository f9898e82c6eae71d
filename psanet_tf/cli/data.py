"""`psanet data ...`: make and check datasets."""

from pathlib import Path
from typing import Annotated

import typer

from psanet_tf.cli.app import app

data_app = typer.Typer(help="Make and check datasets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


@data_app.command()
def scenes(
    root: Annotated[Path, typer.Argument(help="Folder to make; it must not exist yet.")],
    train: Annotated[int, typer.Option(help="Number of training pictures.")] = 600,
    validation: Annotated[int, typer.Option(help="Number of validation pictures.")] = 100,
    size: Annotated[int, typer.Option(help="Rows and columns of a picture, at least 161.")] = 161,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 0,
):
    """Write a small synthetic dataset, in ADE20K's layout, whose labels need context from far away.

    Example: psanet data scenes demo/scenes
    """
    from psanet_tf.data.scenes import write_scenes

    write_scenes(root, train=train, validation=validation, size=size, seed=seed)
    print(f"{train} training and {validation} validation pictures are in {root}")
