"""`psanet data tile`: a dataset of scenes too large to be images."""

from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.data import data_app
from psanet_cli.data_import import CLASSES, IGNORE, MAPPING, PALETTE, label_choices
from psanet_cli.numbers import numbers


@data_app.command("tile")
def tile(
    scenes: Annotated[list[Path], typer.Argument(metavar="SCENE...", help="GeoTIFF files, or slides.")],
    labels: Annotated[
        list[Path],
        typer.Option(
            help="The labels of each scene, in their order: a raster of its size, of values or colours, or polygons in "
            "GeoJSON, of which one file may be for all scenes; repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    size: Annotated[int, typer.Option(min=64, help="Rows and columns of a tile, about.")] = 1024,
    val: Annotated[float, typer.Option(help="Share of the tiles to validate with.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of those tiles.")] = 0,
    bands: Annotated[
        str | None, typer.Option(metavar="N,...", help="The bands that are channels, counted from 1; default: all.")
    ] = None,
    class_property: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of polygons: the property that names the class.")
    ] = None,
    palette: PALETTE = None,
    classes: CLASSES = None,
    mapping: MAPPING = None,
    ignore: IGNORE = None,
):
    """Cut scenes and their labels into tiles, to train on, with a configuration.

    Nothing is read whole. Whole blocks of neighbouring tiles are for validation. Tiles without an image or without
    labels are left out, what has no image (nodata, alpha) gets no label. Pixels in no polygon are called unlabelled.

    \b
    Examples:
      psanet data tile scene.tif --labels labels.tif --out fields --classes background,road,field
      psanet data tile a.tif b.tif --labels a_labels.tif --labels b_labels.tif --out fields --palette colors.csv
      psanet data tile scene.tif --labels fields.geojson --class-property crop --map unlabelled=other --out fields
    """
    from psanet_tf.rasters.tiling import TilingOptions, tile_scenes

    if not 0 < val < 1:
        raise ValueError(f"--val: must be between 0 and 1, got {val:g}")
    chosen = numbers(bands, "--bands")
    options = TilingOptions(size, val, seed, chosen, label_choices(classes, mapping, ignore), palette, class_property)
    for line in tile_scenes(scenes, labels, out, options):
        print(line)
