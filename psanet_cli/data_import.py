"""`psanet data import`: a dataset of whatever labels people have."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.data import data_app


class LabelKind(str, Enum):
    VALUES = "values"
    RGB = "rgb"


class Overlap(str, Enum):
    STOP = "stop"
    LAST = "last"
    IGNORE = "ignore"


# What says which labels are which classes, wherever these come from.
PALETTE = Annotated[
    Path | None, typer.Option(help="File of the classes' colours in the labels, e.g. road,128,64,128 per line.")
]
CLASSES = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Names in the order of the class indices, with commas between, or a file of one per line; of values "
        "without names in the order of the values.",
    ),
]
MAPPING = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="FOUND=CLASS", help="Class of a value, colour (#ff8000) or name; repeatable."),
]
IGNORE = Annotated[
    list[str] | None,
    typer.Option(help="Values, colours or names that are no class, e.g. 255 or 0,255; repeatable."),
]


@data_app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of images and masks, or an export of CVAT, Label Studio, LabelMe, COCO, Supervisely or "
            "Roboflow: its .zip, the folder, or its .xml or .json file."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to make; without it only what was found is said.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images, if its name does not tell.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of the masks, if its name does not tell.")] = None,
    labels: Annotated[
        LabelKind | None,
        typer.Option(help="Whether values or colours of masks are read; default: as the files have it."),
    ] = None,
    palette: PALETTE = None,
    classes: CLASSES = None,
    mapping: MAPPING = None,
    ignore: IGNORE = None,
    overlap: Annotated[
        Overlap | None,
        typer.Option(
            help="Of several masks of one image, what pixels of two are: the later class, or none; default: stop."
        ),
    ] = None,
    resize_masks: Annotated[
        bool,
        typer.Option(
            "--resize-masks",
            help="Enlarge masks that are a half, a third, ... of their image, each pixel to a square of its value.",
        ),
    ] = False,
    skip: Annotated[
        list[str] | None, typer.Option(help="Kind of shapes without an inside to leave out, e.g. box; repeatable.")
    ] = None,
    val: Annotated[
        float | None,
        typer.Option(help="Share of the images to validate with, where the source has no such split, e.g. 0.1."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the draw of those images; default: 0.")] = None,
):
    """Look what labels a folder or an export holds, and write a dataset to train on, with its configuration.

    Nothing is guessed: a value, a colour or a pixel that has no class stops the import, and the message says which
    option settles it. Pixels that no shape covers are called unlabelled.

    \b
    Examples:
      psanet data import masks/                                          (says what is there)
      psanet data import masks/ --out dataset --classes background,road --val 0.1
      psanet data import masks/ --out dataset --labels rgb --palette classes.csv --ignore "#000000" --val 0.1
      psanet data import export.zip --images photos/ --out dataset --map unlabelled=background --val 0.1
    """
    from psanet_tf.data.importing import ImportOptions, import_dataset, inspect_source
    from psanet_tf.data.importing.archives import unpacked
    from psanet_tf.data.importing.where import Where

    if val is not None and not 0 < val < 1:
        raise ValueError(f"--val: must be between 0 and 1, got {val}")
    if seed is not None and val is None:
        raise ValueError(f"--seed {seed} is of the draw of validation images, which --val asks for: leave it out")
    if out is not None and out.exists():
        raise FileExistsError(f"--out: {out} exists already; remove it or choose another place")
    kinds = {None: None, LabelKind.VALUES: "value", LabelKind.RGB: "colour"}
    choices = label_choices(classes, mapping, ignore)
    where = Where(images, masks, kinds[labels], palette, overlap and overlap.value, tuple(skip or ()), resize_masks)
    with unpacked(source, out) as folder:
        inspection = inspect_source(folder, where)
        print(inspection.text().replace(str(folder), str(source)))
        if out is None:
            print("nothing is written: --out FOLDER makes a dataset of it")
            return
        for line in import_dataset(inspection, out, ImportOptions(choices, val, seed or 0)):
            print(line)


def label_choices(classes: str | None, mapping: list[str] | None, ignore: list[str] | None):
    """`LabelChoices` of --classes, --map and --ignore.

    Raises:
        ValueError: an option that is not of its form.
    """
    from psanet_tf.data.importing.rules import LabelChoices

    return LabelChoices(_names(classes), _mapping(mapping or ()), tuple(_words(ignore or ())))


def _names(text):
    """Of --classes: a file, or names with commas between."""
    from psanet_tf.data.text_files import read_lines

    if text is None:
        return None
    if Path(text).is_file() or text.endswith(".txt"):
        names = read_lines(text, "--classes", "one class name per line")
    else:
        names = [name.strip() for name in text.split(",")]
    doubles = {name for name in names if names.count(name) > 1}
    if doubles or "" in names:
        raise ValueError(f"--classes: every class needs a name of its own, got {', '.join(names)!r}")
    return tuple(names)


def _mapping(texts):
    classes = {}
    for text in texts:
        found, equals, name = text.rpartition("=")
        if not equals or not found.strip() or not name.strip():
            raise ValueError(f"--map: must look like 7=road, got {text!r}")
        found, name = _key(found), name.strip()
        if classes.setdefault(found, name) != name:
            raise ValueError(f"--map: {found} is {classes[found]!r} and {name!r}: which of the two?")
    return classes


def _words(texts):
    return [_key(word) for text in texts for word in text.split(",") if word.strip()]


def _key(text):
    """Colours in one form."""
    text = text.strip()
    return text.lower() if text.startswith("#") else text
