"""`psanet compare`: evaluations side by side."""

from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import app


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Two or more folders of psanet evaluate, or run folders that hold one.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for comparison.html and comparison.png.")] = Path("comparison"),
    images: Annotated[int, typer.Option(help="Images to show, those on which the runs differ most.")] = 8,
    name: Annotated[list[str] | None, typer.Option(help="What to call a run; once per run, in their order.")] = None,
):
    """Compare evaluations: scores, IoU per class, and input, truth and predictions side by side.

    \b
    Example:
      psanet compare runs/fcn runs/psanet --name FCN --name PSANet --out comparison
    """
    from psanet_tf.evaluation.comparison import compare_evaluations
    from psanet_tf.evaluation.score_tables import score_line

    for title, summary in compare_evaluations(runs, out, images, name).items():
        print(f"{title}: {score_line(summary)}")
    print(f"comparison: {out / 'comparison.html'}, {out / 'comparison.png'}")
