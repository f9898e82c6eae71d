"""`psanet evaluate`: scores of a network on a dataset."""

from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import WEIGHTS, app, end_with_failures

_UNREAD = "images could not be read and are not in the scores"
PAPER_SCALES = "evaluate.scales=[0.5,0.75,1.0,1.25,1.5,1.75]"


@app.command()
def evaluate(
    weights: Annotated[str, typer.Option(help=WEIGHTS)],
    config: Annotated[Path | None, typer.Option(help="Configuration; default: the run folder's config.yaml.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results; default: RUN_DIR/evaluation.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. evaluate.flip=false.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split to score; default: data.val_split.")] = None,
    multi_scale: Annotated[bool, typer.Option("--multi-scale", help="The paper's six scales, 0.5 to 1.75.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="One pass per image instead of the sliding window.")] = False,
    limit: Annotated[int | None, typer.Option(help="Score only so many images, evenly spread.")] = None,
    worst: Annotated[int, typer.Option(help="Images on the sheet of the worst.")] = 10,
    submission: Annotated[
        bool, typer.Option("--submission", help="Also write files as the dataset's test server takes them.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Score the images of the I-th of N machines only, for --merge afterwards."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Put the scores of all shards together, as if one machine had done all.")
    ] = False,
):
    """Score a network by the paper's protocol: per-class IoU and accuracy, mIoU, mAcc, allAcc, boundary IoU.

    Works on all GPUs. Interrupted, it goes on where it stopped when called again. Several machines take a --shard each,
    into the same folder or folders of their own whose `shards` are brought together; --merge then writes the report.

    \b
    Examples:
      psanet evaluate --weights runs/psanet
      psanet evaluate --weights mmseg/psanet_r50-d8_4xb4-80k_ade20k-512x512 --config configs/ade20k/psanet50.yaml
      psanet evaluate --weights psanet50.pth --config configs/ade20k/psanet50.yaml --multi-scale --out results
      psanet evaluate --weights runs/psanet --shard 1/8      (on the first of eight machines)
    """
    from psanet_tf.evaluation.run import run_evaluation
    from psanet_tf.evaluation.score_tables import print_table
    from psanet_tf.inference.shards import Shard

    overrides = list(overrides or ())
    if multi_scale:
        overrides.append(PAPER_SCALES)
    part = None if shard is None else Shard.parse(shard)
    folder, summary = run_evaluation(
        weights, out, config, overrides, split, whole, limit, worst, submission, part, merge
    )
    if part:
        print(f"shard {part}: {summary['images']} images scored in {folder.path}; when all are: --merge")
        end_with_failures(summary["failed"], _UNREAD)
        return
    print_table(summary)
    print(f"report: {folder.path / 'report.html'}")
    print(f"tables: {folder.path / 'classes.csv'}, {folder.path / 'scores.json'}")
    print(f"predictions: {folder.path / 'labels'} (class indices), {folder.path / 'colors'} (palette)")
    end_with_failures(summary["failed"], _UNREAD)
