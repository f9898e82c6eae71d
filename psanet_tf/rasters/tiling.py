"""From scenes and their labels to a dataset of tiles, which training reads as it reads any images."""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from psanet_tf.data.findings import counted
from psanet_tf.data.image_format import DTYPES, PHOTOGRAPHS, ImageFormat
from psanet_tf.data.importing.class_files import read_class_files
from psanet_tf.data.importing.configuration import configuration_text
from psanet_tf.data.importing.rules import ClassRule, KeyCounts, LabelChoices, class_rule, describe_keys
from psanet_tf.data.importing.source import Source, SourceImage
from psanet_tf.data.importing.writing import CONFIGURATION, write_class_files
from psanet_tf.data.label_rules import IGNORE_LABEL
from psanet_tf.data.plain_copies import encoded_plainly, png_bytes
from psanet_tf.folders import atomic_folder
from psanet_tf.progress import track
from psanet_tf.rasters.geotiff import opened
from psanet_tf.rasters.label_sources import LabelPolygons, LabelRaster, SceneLabels, is_polygons, polygon_names
from psanet_tf.rasters.opening import RasterView, open_raster
from psanet_tf.rasters.raster import Raster
from psanet_tf.rasters.slides import SLIDE_SUFFIXES

_BLOCK_SIDES = (4, 2, 1)  # tiles along a side of what falls to one split as a whole
_BLOCKS_OF_VALIDATION = 4  # so many at least, where there are tiles enough


@dataclasses.dataclass(frozen=True)
class TilingOptions:
    """What the user says.

    Attributes:
        size: rows and columns of a tile, about.
        val_share: of the tiles that become validation images.
        seed: of the draw of these.
        bands: as of `RasterView`.
        choices: which keys of the labels are which classes.
        palette: file of the classes' colours.
        class_property: of polygons.
    """

    size: int = 1024
    val_share: float = 0.1
    seed: int = 0
    bands: tuple[int, ...] | None = None
    choices: LabelChoices = dataclasses.field(default_factory=LabelChoices)
    palette: Path | None = None
    class_property: str | None = None


@dataclasses.dataclass(frozen=True)
class Tile:
    """A part of a scene.

    Attributes:
        scene: its number.
        place: its row and column among the tiles of the scene.
        window: top, left, height and width in pixels.
        codes: the keys that occur in it where there is an image.
    """

    scene: int
    place: tuple[int, int]
    window: tuple[int, int, int, int]
    codes: tuple[int, ...]


def tile_scenes(
    scenes: Sequence[str | os.PathLike],
    labels: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    options: TilingOptions,
) -> list[str]:
    """Cuts scenes and their labels into tiles that abut: a dataset in the custom layout, and its configuration.

    Tiles without an image, or without a label of a class, are left out. Whole blocks of neighbouring tiles fall to
    validation, so that no pixel is in both splits and few lie next to the other one. What holds no image has no label,
    and is the mean colour, of images that are no photographs the mean of the tile's pixels.

    Args:
        scenes: files that `open_raster` reads.
        labels: the labels of each, a raster of its size or GeoJSON; one GeoJSON file may be for all.
        out: folder to make.
        options: `TilingOptions`.

    Returns:
        What was written, in lines of text.

    Raises:
        FileExistsError: there is something at `out`.
        ValueError: scenes or labels that cannot be read or do not fit each other, keys without a class, too few tiles.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"--out: {out} exists already; remove it or choose another place")
    pairs = _pairs(list(map(Path, scenes)), list(map(Path, labels)))
    images = _format_of(pairs[0][0], options.bands)
    names, left_out = None, []
    if is_polygons(pairs[0][1]):
        names, left_out = polygon_names([path for _, path in pairs], options.class_property)
    source, counts, tiles = _look(pairs, images, names, options)
    rule = class_rule(source, counts, options.choices)
    tiles = [tile for tile in tiles if any(rule.table[code] != IGNORE_LABEL for code in tile.codes)]
    splits = _splits(tiles, options)
    with atomic_folder(out) as folder:
        written = {}
        for split, chosen in splits.items():
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True)
            done = _write(folder, split, chosen, pairs, images, names, rule, options)
            written[split] = list(track(done, f"writing {split}", len(chosen)))
        write_class_files(folder, rule)
        text = configuration_text(
            out, written["train"], len(rule.class_names), rule.colors is not None, images, "psanet data tile"
        )
        (folder / CONFIGURATION).write_text(text, encoding="utf-8")
    return [
        *left_out,
        "classes, by what became them:",
        *describe_keys(source, counts, rule.class_of),
        f"{counted(len(splits['train']), 'training tile')}, {counted(len(splits['val']), 'validation tile')} "
        f"(whole blocks, drawn with seed {options.seed}), {images.in_words()}",
        f"{counted(len(rule.class_names), 'class', 'classes')}: {', '.join(rule.class_names)}",
        f"next: psanet data check --config {out / CONFIGURATION}",
    ]


def _format_of(path, bands):
    """The `ImageFormat` of a scene, without mean and deviation: of all bands but alpha, or of those named."""
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return PHOTOGRAPHS
    with opened(path) as file:
        colors = [kind.name != "alpha" for kind in file.colorinterp]
        dtype = file.dtypes[0]
    if dtype not in DTYPES:
        raise ValueError(
            f"{path} holds {dtype}; images of a dataset are of {', '.join(DTYPES)}: gdal_translate -ot Float32 keeps "
            "its values"
        )
    channels = sum(colors) if bands is None else len(bands)
    return PHOTOGRAPHS if dtype == "uint8" and channels == 1 else ImageFormat(channels, dtype)


def _pairs(scenes, labels):
    if len(labels) == 1 and is_polygons(labels[0]):
        labels = labels * len(scenes)
    if len(labels) != len(scenes):
        raise ValueError(
            f"{counted(len(scenes), 'scene')} and {counted(len(labels), 'file')} of labels: give --labels for each "
            "scene, in their order, or one GeoJSON file"
        )
    for path in (*scenes, *labels):
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
    if len({is_polygons(path) for path in labels}) > 1:
        raise ValueError("--labels: some are GeoJSON and some are rasters: give one kind at a time")
    stems = [scene.stem for scene in scenes]
    if doubles := {stem for stem in stems if stems.count(stem) > 1}:
        raise ValueError(f"several scenes are called {min(doubles)}: their tiles would have the same names")
    return list(zip(scenes, labels, strict=True))


def _opened(pair, images, names, options) -> tuple[Raster, SceneLabels]:
    scene = open_raster(pair[0], images, RasterView(options.bands))
    try:
        if names is not None:
            return scene, LabelPolygons(pair[1], scene, options.class_property, names)
        return scene, LabelRaster(pair[1], scene)
    except ValueError:
        scene.close()
        raise


def _look(pairs, images, names, options):
    """(source, counts, tiles with an image): one pass over all scenes and labels."""
    counts, tiles, kinds, own_names = KeyCounts(), [], {}, {}
    for number, pair in enumerate(pairs):
        scene, labels = _opened(pair, images, names, options)
        with scene, labels:
            kinds.setdefault(labels.keys.kind, pair[1])
            own_names |= labels.names
            grid = list(_grid(scene.size, options.size))
            for place, window in track(grid, f"reading {pair[0].name}"):
                valid, codes = scene.read(*window)[1], labels.read(*window)
                found, pixels = np.unique(codes[0][valid & codes[1]], return_counts=True)
                if len(found):
                    counts.add(f"{pair[1]}, tile {place[0]}, {place[1]}", found, pixels)
                    tiles.append(Tile(number, place, window, tuple(found.tolist())))
            keys = labels.keys
    if len(kinds) > 1:
        raise ValueError(f"--labels: {' and '.join(map(str, kinds.values()))} differ: one holds values, one colours")
    if not tiles:
        raise ValueError("no tile has both an image and labels")
    if options.palette is not None and keys.kind != "colour":
        raise ValueError(f"--palette is for labels of colours; {pairs[0][1]} holds {keys.kind}s")
    files = read_class_files(Path(), options.palette) if options.palette is not None else None
    source = Source(
        "scenes",
        [],
        keys,
        dict(files.colors) if files else own_names,
        frozenset(files.ignored) if files else frozenset(),
        tuple(files.color_of_name) if files else (),
        dict(files.color_of_name) if files else {},
    )
    return source, counts, tiles


def _grid(size, side) -> Iterator[tuple[tuple[int, int], tuple[int, int, int, int]]]:
    """Parts of nearly one size: none is a sliver."""
    edges = [
        [round(index * length / count) for index in range(count + 1)]
        for length, count in ((length, max(1, round(length / side))) for length in size)
    ]
    rows, columns = (list(enumerate(itertools.pairwise(axis))) for axis in edges)
    for (row, (top, bottom)), (column, (left, right)) in itertools.product(rows, columns):
        yield (row, column), (top, left, bottom - top, right - left)


def _splits(tiles, options):
    """{"train": tiles, "val": tiles}, in their order."""
    if len(tiles) < 2:
        raise ValueError(
            f"{counted(len(tiles), 'tile')} with an image and labels of classes, for training and validation at least "
            "2 are needed: give a smaller --size"
        )
    wanted = min(max(1, round(options.val_share * len(tiles))), len(tiles) - 1)
    for side in _BLOCK_SIDES:
        blocks = {}
        for index, tile in enumerate(tiles):
            blocks.setdefault((tile.scene, tile.place[0] // side, tile.place[1] // side), []).append(index)
        if len(blocks) * options.val_share >= _BLOCKS_OF_VALIDATION:
            break
    drawn, validation = list(blocks.values()), set()
    np.random.default_rng(options.seed).shuffle(drawn)
    for block in drawn:
        if len(validation) < wanted and len(validation) + len(block) < len(tiles):
            validation.update(block)
    return {
        "train": [tile for index, tile in enumerate(tiles) if index not in validation],
        "val": [tile for index, tile in enumerate(tiles) if index in validation],
    }


def _write(folder, split, tiles, pairs, images, names, rule: ClassRule, options) -> Iterator[SourceImage]:
    suffix = ".png" if images.is_photograph else ".npy"
    for number, group in itertools.groupby(tiles, key=lambda tile: tile.scene):
        scene, labels = _opened(pairs[number], images, names, options)
        with scene, labels:
            for tile in group:
                name = f"{pairs[number][0].stem}_{tile.place[0]:03}_{tile.place[1]:03}"
                pixels, has_image = scene.read(*tile.window)
                codes, is_label = labels.read(*tile.window)
                if not has_image.all():
                    pixels = np.where(has_image[..., None], pixels, _fill(pixels, has_image, images))
                values = np.where(has_image & is_label, rule.table[codes], np.uint8(IGNORE_LABEL))
                path = folder / "images" / split / f"{name}{suffix}"
                path.write_bytes(encoded_plainly(np.ascontiguousarray(pixels), images))
                (folder / "labels" / split / f"{name}.png").write_bytes(png_bytes(values))
                yield SourceImage(name, path, None, split)


def _fill(pixels, has_image, images):
    if images.is_photograph:
        return images.denormalized(np.zeros(images.channels, np.float32))
    mean = pixels[has_image].mean(axis=0, dtype=np.float64)
    return (mean if images.dtype == "float32" else np.round(mean)).astype(images.dtype)
