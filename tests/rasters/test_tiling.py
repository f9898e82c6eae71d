"""Datasets of tiles, cut from scenes and their labels."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf.config import load_config
from psanet_tf.data.catalog import info_of
from psanet_tf.data.readers import list_examples, read_example

rasterio = pytest.importorskip("rasterio")
from raster_examples import noise, write_raster  # noqa: E402

SIZE = (200, 330)
NAMES = "field,road,roof"


def run(*arguments):
    _register()
    return CliRunner().invoke(app, ["data", "tile", *map(str, arguments), "--size", "64"])


def blocks(seed=1):
    """Labels 0 to 2 in squares of 20 pixels."""
    small = np.random.default_rng(seed).integers(0, 3, (10, 17), "uint8")
    return np.kron(small, np.ones((20, 20), "uint8"))[: SIZE[0], : SIZE[1]]


def read_back(out, size=SIZE):
    """(pixels, labels, bool where there is a tile, configuration) put together again, and the split of every pixel."""
    config = load_config(out / "dataset.yaml")
    info = info_of(config.data)
    pixels = np.zeros((*size, info.images.channels), info.images.dtype)
    labels, split_of = np.full(size, 99, "uint8"), np.full(size, "", "U5")
    edges = [
        [round(index * length / count) for index in range(count + 1)]
        for length, count in ((length, round(length / 64)) for length in size)
    ]
    for split in ("train", "val"):
        for example in list_examples(config.data, split):
            image, values = read_example(example, info)
            row, column = map(int, example.name.split("_")[-2:])
            place = slice(*edges[0][row : row + 2]), slice(*edges[1][column : column + 2])
            assert (split_of[place] == "").all()
            pixels[place], labels[place], split_of[place] = image, values, split
    return pixels, labels, split_of, config, info


@pytest.mark.parametrize(
    ("channels", "dtype"), [(3, "uint8"), pytest.param(3, "uint16", marks=pytest.mark.extended), (4, "float32")]
)
def test_tiles_put_together_are_the_scene(tmp_path, channels, dtype):
    pixels, labels = noise(SIZE, channels, dtype), blocks()
    if dtype != "float32":
        pixels = np.maximum(pixels, 1)
    nodata = np.float32(-1) if dtype == "float32" else 0
    pixels[:70, :140] = nodata
    has_image = (pixels != nodata).all(-1)
    labels[150:, 300:] = 255
    scene = write_raster(tmp_path / "scene.tif", pixels, nodata=float(nodata))
    truth = write_raster(tmp_path / "truth.tif", labels, nodata=255)
    result = run(scene, "--labels", truth, "--out", tmp_path / "out", "--classes", NAMES, "--val", "0.3")
    assert result.exit_code == 0, (result.output, result.exception)
    got, got_labels, split_of, _, info = read_back(tmp_path / "out")
    assert info.class_names == tuple(NAMES.split(",")) and info.images.in_words() == f"{channels} channels of {dtype}"
    # Tiles without any image are left out: the first row's first two.
    assert (split_of[:67, :132] == "").all() and (split_of[67:] != "").all()
    there = split_of != ""
    np.testing.assert_array_equal(got[has_image], pixels[has_image])
    np.testing.assert_array_equal(got_labels[there], np.where(has_image, labels, 255)[there])
    assert 0.2 < (split_of == "val").mean() < 0.45
    # What holds no image is the mean colour, of a tile that is no photograph its own.
    tile = slice(67, 133), slice(0, 66)
    mean = info.images.fill if info.images.is_photograph else pixels[tile][has_image[tile]].mean(0, dtype=float)
    empty = got[tile][~has_image[tile]]
    assert empty.shape == (3 * 66, channels)
    np.testing.assert_allclose(empty, np.broadcast_to(mean, empty.shape), atol=0.5 if dtype != "float32" else 1e-6)


def test_whole_blocks_of_tiles_are_for_validation(tmp_path):
    labels = np.zeros((256, 512), "uint8")
    labels[::2] = 1
    scene = write_raster(tmp_path / "scene.tif", noise(labels.shape), nodata=0)
    truth = write_raster(tmp_path / "truth.tif", labels)
    splits = []
    for seed in (0, 0, 1):
        out = tmp_path / f"out{len(splits)}"
        run(scene, "--labels", truth, "--out", out, "--classes", "a,b", "--val", "0.5", "--seed", seed)
        places = {tuple(map(int, path.stem.split("_")[-2:])) for path in (out / "images/val").iterdir()}
        # 4 x 8 tiles make 8 blocks of 2 x 2, of which 4 are half; of 4 x 4 there would be too few.
        assert len(places) == 16
        assert len({(row // 2, column // 2) for row, column in places}) == 4
        splits.append(places)
    assert splits[0] == splits[1] != splits[2]


def test_labels_by_colour_and_of_several_scenes(tmp_path):
    colors = np.array([[0, 200, 0], [90, 90, 90], [255, 0, 0]], "uint8")
    arguments, expected = [], {}
    for index in range(2):
        labels = blocks(index)
        write_raster(tmp_path / f"s{index}.tif", noise(SIZE, seed=index), nodata=0)
        write_raster(tmp_path / f"l{index}.tif", colors[labels], photometric="rgb")
        arguments += [tmp_path / f"s{index}.tif", "--labels", tmp_path / f"l{index}.tif"]
        expected[f"s{index}"] = labels
    (tmp_path / "colors.csv").write_text("field,0,200,0\nroad,90,90,90\nroof,255,0,0\n")
    refused = run(*arguments, "--out", tmp_path / "out")
    assert "3 colours without a class: #00c800" in str(refused.exception)
    result = run(*arguments, "--out", tmp_path / "out", "--palette", tmp_path / "colors.csv")
    assert result.exit_code == 0, (result.output, result.exception)
    config = load_config(tmp_path / "out" / "dataset.yaml")
    info = info_of(config.data)
    assert info.class_names == ("field", "road", "roof")
    np.testing.assert_array_equal(info.colors, colors)
    counts = np.zeros(3, int)
    for split in ("train", "val"):
        for example in list_examples(config.data, split):
            counts += np.bincount(read_example(example, info)[1].ravel(), minlength=3)
    np.testing.assert_array_equal(counts, sum(np.bincount(labels.ravel()) for labels in expected.values()))


def rectangle(left, top, right, bottom):
    """In the coordinates of the scene, of pixels counted from its corner."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return [[[500_000 + 0.2 * x, 5_800_000 - 0.2 * y] for x, y in corners]]


def features(crs, transform=lambda polygon: polygon):
    shapes = [("field", rectangle(10, 20, 200, 180)), ("roof", rectangle(150, 100, 300, 150))]
    return json.dumps(
        {
            "type": "FeatureCollection",
            **({"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}),
            "features": [
                {"type": "Feature", "properties": {"kind": name, "id": 1},
                 "geometry": transform({"type": "Polygon", "coordinates": polygon})}
                for name, polygon in shapes
            ]
            + [{"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [0, 0]}}],
        }
    )  # fmt: skip


def test_a_coordinate_system_of_null_is_none(tmp_path):
    scene = write_raster(tmp_path / "scene.tif", noise(SIZE))
    tree = json.loads(features(None))
    (tmp_path / "shapes.geojson").write_text(json.dumps({**tree, "crs": None}))
    (tmp_path / "without.geojson").write_text(json.dumps(tree))
    outputs = []
    for name in ("shapes", "without"):
        refused = run(
            scene, "--labels", tmp_path / f"{name}.geojson", "--class-property", "kind", "--out", tmp_path / name
        )
        outputs.append(str(refused.exception))
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("crs", ["urn:ogc:def:crs:EPSG::32633", None])
def test_polygons_are_laid_on_the_scene_in_their_order(tmp_path, crs):
    from rasterio.warp import transform_geom

    scene = write_raster(tmp_path / "scene.tif", noise(SIZE))
    to_degrees = (
        (lambda polygon: polygon) if crs else (lambda one: transform_geom("EPSG:32633", "OGC:CRS84", one, precision=12))
    )
    (tmp_path / "shapes.geojson").write_text(features(crs, to_degrees))
    arguments = (scene, "--labels", tmp_path / "shapes.geojson", "--out", tmp_path / "out")
    refused = run(*arguments)
    assert "--class-property: say which property names the class; " in str(refused.exception)
    assert "shapes.geojson has id, kind" in str(refused.exception)
    refused = run(*arguments, "--class-property", "name")
    assert "--class-property name: a feature has no such property" in str(refused.exception)
    refused = run(*arguments, "--class-property", "kind")
    assert "have no label" in str(refused.exception) and "--map unlabelled=background" in str(refused.exception)
    result = run(*arguments, "--class-property", "kind", "--map", "unlabelled=other")
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"left out: 1 feature of {tmp_path / 'shapes.geojson'} that cover nothing (Point)" in result.output
    _, labels, _, _, info = read_back(tmp_path / "out")
    assert info.class_names == ("other", "field", "roof")
    expected = np.zeros(SIZE, "uint8")
    expected[20:180, 10:200] = 1
    expected[100:150, 150:300] = 2
    np.testing.assert_array_equal(labels, expected)


def test_labels_of_our_own_bring_their_names(tmp_path):
    scene, labels = write_raster(tmp_path / "scene.tif", noise(SIZE)), blocks()
    truth = write_raster(tmp_path / "truth.tif", labels, nodata=255)
    with rasterio.open(truth, "r+") as file:
        file.update_tags(CLASS_0="field", CLASS_1="road", CLASS_2="roof")
    result = run(scene, "--labels", truth, "--out", tmp_path / "out")
    assert result.exit_code == 0, (result.output, result.exception)
    assert read_back(tmp_path / "out")[-1].class_names == ("field", "road", "roof")


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    scene = write_raster(tmp_path / "scene.tif", noise(SIZE))
    plain = write_raster(tmp_path / "plain.tif", noise(SIZE), crs=None)
    labels = write_raster(tmp_path / "labels.tif", blocks())
    small = write_raster(tmp_path / "small.tif", blocks()[:100])
    away = write_raster(tmp_path / "away.tif", blocks(), transform=rasterio.Affine(0.2, 0, 0, 0, -0.2, 0))
    floats = write_raster(tmp_path / "floats.tif", blocks().astype("float32"))
    negative = write_raster(tmp_path / "negative.tif", blocks().astype("int16") - 1)
    signed = write_raster(tmp_path / "signed.tif", noise(SIZE, 3).astype("int16"))
    (tmp_path / "shapes.geojson").write_text(features(None))
    (tmp_path / "no.geojson").write_text("[]")
    (tmp_path / "folder").mkdir()
    same = write_raster(tmp_path / "folder" / "scene.tif", noise(SIZE))
    for arguments, message in (
        ((scene, "--labels", labels), "3 values without a class: 0"),
        ((scene, "--labels", small), "small.tif is of 100 x 330 pixels, "),
        ((scene, "--labels", away), "away.tif lies elsewhere than "),
        (
            (scene, "--labels", floats),
            "labels must be whole numbers in one band or colours in three of uint8, this has 1",
        ),
        ((scene, "--labels", negative), "values from -1 to 1, labels must be 0..65535"),
        ((scene, plain, "--labels", labels), "2 scenes and 1 file of labels: give --labels for each scene"),
        ((scene, same, "--labels", labels, "--labels", labels), "several scenes are called scene"),
        ((plain, "--labels", tmp_path / "shapes.geojson", "--class-property", "kind"), "does not say where it lies"),
        ((scene, "--labels", tmp_path / "no.geojson", "--class-property", "kind"), "is no GeoJSON file with features"),
        ((scene, "--labels", tmp_path / "none.tif"), "there is no file "),
        ((signed, "--labels", labels), "holds int16; images of a dataset are of uint8, uint16, float32"),
        ((scene, "--labels", labels, "--val", "1"), "--val: must be between 0 and 1, got 1"),
        ((scene, "--labels", labels, "--bands", "1,2,9", "--classes", NAMES), "there is no band 9"),
        (
            (scene, "--labels", labels, "--palette", tmp_path / "c.csv", "--classes", NAMES),
            "--palette is for labels of",
        ),
    ):
        result = run(*arguments, "--out", tmp_path / "out")
        assert message in str(result.exception), (message, result.exception)
        assert not (tmp_path / "out").exists()
    tiny = write_raster(tmp_path / "tiny.tif", noise((40, 40)))
    truth = write_raster(tmp_path / "tiny_labels.tif", blocks()[:40, :40])
    result = run(tiny, "--labels", truth, "--out", tmp_path / "out", "--classes", NAMES)
    assert "1 tile with an image and labels of classes" in str(result.exception)
    (tmp_path / "out").mkdir()
    assert "exists already" in str(run(scene, "--labels", labels, "--out", tmp_path / "out").exception)
