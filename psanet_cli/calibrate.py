"""`psanet calibrate`: probabilities that are as often right as they say."""

from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import WEIGHTS, app, end_with_failures


@app.command()
def calibrate(
    weights: Annotated[str, typer.Option(help=WEIGHTS)],
    config: Annotated[Path | None, typer.Option(help="Configuration; default: the run folder's config.yaml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. evaluate.flip=false.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split to fit to; default: data.val_split.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="One pass per image instead of the sliding window.")] = False,
    limit: Annotated[int | None, typer.Option(help="Look at so many images only, evenly spread.")] = None,
    pixels: Annotated[int, typer.Option(help="Labelled pixels to look at, of all images together.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Of the choice of the pixels.")] = 0,
):
    """Fit a temperature to labelled images, and store it with the weights: every later probability uses it.

    A network's probabilities are often too sure. Divided by the temperature before the softmax, its logits give
    probabilities that are as often right as they say; labels stay what they are, but for a few pixels where crops,
    mirror images or scales are averaged. A run folder or .keras file carries the temperature from then on, a .pth file
    gets a file beside it. Models that are exported afterwards have it in their graph.

    \b
    Examples:
      psanet calibrate --weights runs/psanet
      psanet calibrate --weights psanet50.pth --config configs/ade20k/psanet50.yaml --set data.root=ADE
    """
    from psanet_tf.evaluation.calibration import calibrate as fit

    calibration, file, failures = fit(weights, config, overrides or (), split, whole, limit, pixels, seed)
    print(
        f"temperature {calibration.temperature:.4f}, fitted to {calibration.pixels} pixels of {calibration.images} "
        f"images of split {calibration.split!r}"
    )
    errors = [value.expected_calibration_error for value in (calibration.before, calibration.after)]
    print(f"expected calibration error: {100 * errors[0]:.2f} % before, {100 * errors[1]:.2f} % after")
    print(f"negative log likelihood:    {calibration.nll[0]:.4f} before, {calibration.nll[1]:.4f} after")
    print(f"labels that change: {calibration.changed:.2%} of these pixels")
    print(f"stored in {file}")
    end_with_failures(failures, "images could not be read")
