"""`psanet attention`: what the attention of a point looks at."""

from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import WEIGHTS, app


@app.command()
def attention(
    image: Annotated[Path, typer.Option(help="Image.")],
    weights: Annotated[str, typer.Option(help=WEIGHTS)],
    point: Annotated[
        list[str] | None, typer.Option(metavar="X,Y", help="Pixels from the left and the top; may be repeated.")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="A sheet of 3 x 4 points instead.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the sheet and the page.")] = Path("attention"),
    config: Annotated[
        Path | None, typer.Option(help="Configuration; default: the run folder's, or what the weights tell.")
    ] = None,
):
    """Show where points gather from (collect) and whom they inform (distribute), as heat maps over the image.

    Writes a PNG of the points, and a page on which hovering any point of the image shows its maps.

    \b
    Examples:
      psanet attention --image photo.jpg --weights runs/psanet --point 310,220
      psanet attention --image photo.jpg --weights runs/psanet --grid
    """
    points = [_parse(text) for text in point or ()]
    from psanet_tf.inference.attention_files import write_attention
    from psanet_tf.inference.segmenter import Segmenter

    sheet, page = write_attention(Segmenter.load(weights, config), image, out, points, grid)
    print(f"heat maps: {sheet}")
    print(f"page to hover over: {page}")


def _parse(text):
    try:
        x, y = (float(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"a point must look like 310,220 (x,y in pixels), got {text!r}") from None
    return x, y
