"""`psanet data ...`: make and check datasets."""

import contextlib
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import app

data_app = typer.Typer(help="Make and check datasets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


class SceneKind(str, Enum):
    SCENES = "scenes"
    SIGNPOSTS = "signposts"


@data_app.command()
def scenes(
    root: Annotated[Path, typer.Argument(help="Folder to make; it must not exist yet.")],
    kind: Annotated[
        SceneKind,
        typer.Option(
            help="scenes: one look straight across the image tells what a water is; signposts: of waters only they "
            "know where to look, of fields only the signposts know which they mean."
        ),
    ] = SceneKind.SCENES,
    train: Annotated[
        int | None, typer.Option(help="Number of training images; default: 600 scenes, 1600 signposts.")
    ] = None,
    validation: Annotated[int | None, typer.Option(help="Number of validation images; default: 100.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Of scenes, rows and columns of an image, at least 161; default: 161.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same images.")] = 0,
):
    """Write a small synthetic dataset, in ADE20K's layout, whose labels need context from far away.

    \b
    Examples:
      psanet data scenes demo/scenes
      psanet data scenes demo/signposts --kind signposts
    """
    from psanet_tf.data.scene_files import write_scenes

    write_scenes(root, train, validation, size, seed, kind.value)
    train, validation = (len(list((root / "images" / split).iterdir())) for split in ("training", "validation"))
    print(f"{train} training and {validation} validation images are in {root}")


@data_app.command()
def check(
    config: Annotated[Path, typer.Option(help="Configuration; its data section says what is read.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key, e.g. data.root=/data/ade.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Split to read; may be repeated. Default: the training and validation split."),
    ] = None,
    page: Annotated[
        Path, typer.Option(help="Where the contact sheet goes, an HTML page to look the dataset over.")
    ] = Path("check.html"),
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; default: processor cores.")] = None,
    statistics: Annotated[
        bool,
        typer.Option("--statistics", help="Compute data.mean and data.std of the training images in the same pass."),
    ] = False,
):
    """Read every image and label once and report what is wrong, what to do about it, and how often each class occurs.

    Writes a contact sheet with the findings, classes, sizes, and labels laid over images. Exit status 1 if something
    is wrong.

    Example: psanet data check --config configs/ade20k/psanet50.yaml --set data.root=/data/ADEChallengeData2016
    """
    from psanet_tf.config import load_config
    from psanet_tf.data.catalog import info_of
    from psanet_tf.data.checking import check_splits
    from psanet_tf.data.findings import counted
    from psanet_tf.data.scale import config_scale_warnings
    from psanet_tf.data.statistics import in_yaml
    from psanet_tf.files import check_writable
    from psanet_tf.visualization.contact_sheet import write_contact_sheet

    configuration = load_config(config, settings or ())
    data = configuration.data
    check_writable(page)
    info = info_of(data)
    splits = split or (data.train_split, data.val_split)
    if statistics and data.train_split not in splits:
        raise ValueError(
            f"--statistics are those of the training split: add --split {data.train_split}, or leave --split out"
        )
    reports = check_splits(data, splits, workers, statistics)
    for report in reports:
        print(report.text(info))
    warnings = []
    # Of a split that cannot be listed whole the report says more than this could.
    with contextlib.suppress(OSError, ValueError):
        warnings = config_scale_warnings(configuration, info)
    for warning in warnings:
        print(f"warning: {warning}")
    for report in reports:
        if report.split == data.train_split and report.statistics is not None:
            print(f"mean and deviation of split {report.split!r}, for the section data:\n{in_yaml(*report.statistics)}")
    samples = [[_sample(item, info) for item in report.samples] for report in reports]
    write_contact_sheet(page, f"Check of {data.root}", reports, info, samples, warnings)
    wrong = sum(len(report.problems) for report in reports)
    notes = counted(sum(len(report.notes) for report in reports), "note")
    print(f"{counted(wrong, 'problem')} in {data.root}" if wrong else f"nothing is wrong in {data.root} ({notes})")
    print(f"look at the labels on the images: {page}")
    if wrong:
        raise typer.Exit(1)


def _sample(example, info):
    from psanet_tf.data.readers import read_example

    image, labels = read_example(example, info)
    return example.name, info.images.picture(image), labels


@data_app.command()
def to_tfrecord(
    config: Annotated[Path, typer.Option(help="Configuration; its data section says what is read.")],
    out: Annotated[Path, typer.Option(help="Folder for the shards; what is there already is kept.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key, e.g. data.root=/data/ade.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Split to write; may be repeated. Default: training and validation split.")
    ] = None,
    examples_per_shard: Annotated[int, typer.Option(min=1, help="Images in one file.")] = 500,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Shards written at a time; default: processor cores.")
    ] = None,
):
    """Write a dataset as TFRecord shards, with the feature keys that TF Model Garden reads.

    An interrupted conversion goes on where it was when it is started again. Shards whose images, labels or classes
    have changed are written again.

    Example: psanet data to-tfrecord --config configs/ade20k/psanet50.yaml --out /data/ade20k-records, then train with
    --set data.format=tfrecord --set data.root=/data/ade20k-records
    """
    from psanet_tf.config import load_config
    from psanet_tf.data.record_writer import write_records

    data = load_config(config, settings or ()).data
    for name in split or (data.train_split, data.val_split):
        paths, kept, changes = write_records(data, name, out, examples_per_shard, workers)
        for change in changes:
            print(f"{name}: changed since the shards were written: {change}")
        print(f"{name}: {len(paths)} shards, {kept} of them were there")
    print(f"shards are in {out}; read them with data.format=tfrecord and data.root={out}")
