"""`psanet predict` on scenes and slides, as a user calls it."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from psanet_cli.app import _register, app

rasterio = pytest.importorskip("rasterio")
from raster_examples import CRS, TRANSFORM, noise, write_raster  # noqa: E402


def run(*arguments):
    _register()
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    write_raster(tmp_path / "in" / "scene.tif", noise((50, 56)), nodata=0)
    Image.fromarray(noise((40, 56))).save(tmp_path / "in" / "photo.tif")
    return tmp_path


def test_scenes_take_the_door_by_themselves_and_photographs_stay_as_they_are(evaluated_runs, folder):
    weights, out = evaluated_runs / "fcn", folder / "out"
    result = run(folder / "in", "--weights", weights, "--out", out, "--confidence")
    assert result.exit_code == 0, result.output
    written = ["labels/photo.png", "labels/scene_labels.tif", "overlays/scene.png", "confidence/scene_confidence.tif"]
    assert all((out / name).is_file() for name in written)
    assert f"labels: {out / written[1]}, overlays: {out / written[2]}" in result.output
    assert "in windows of 41 x 41" in result.output
    # base_size of the run is the long side, so that the ordinary way sees the same pixels.
    with rasterio.open(folder / "in" / "scene.tif") as file:
        Image.fromarray(np.moveaxis(file.read(), 0, -1)).save(folder / "same.png")
    assert run(folder / "same.png", "--weights", weights, "--out", folder / "plain").exit_code == 0
    with rasterio.open(out / written[1]) as file:
        assert (file.crs, file.transform) == (rasterio.crs.CRS.from_string(CRS), TRANSFORM)
        np.testing.assert_array_equal(file.read(1), np.asarray(Image.open(folder / "plain/labels/same.png")))
    again = run(folder / "in" / "scene.tif", "--weights", weights, "--out", out)
    assert "scene.tif is labelled already" in again.output


@pytest.mark.extended
def test_what_does_not_go_with_scenes_is_refused_before_work(evaluated_runs, folder):
    scene, weights = folder / "in" / "scene.tif", evaluated_runs / "fcn"
    for arguments, message in (
        ((scene, "--probabilities"), "--probabilities is for images; of scenes and slides --confidence says"),
        ((scene, "--submission"), "--submission is for images of a dataset's test split"),
        ((scene, "--whole"), "is seen in windows, which neither an exported SavedModel or a served model nor --whole"),
        ((scene, "--bands", "1,two"), "--bands: must be numbers with commas between, e.g. 4,3,2, got '1,two'"),
        ((folder / "in" / "photo.tif", "--scale", "0.5"), "are for scenes and slides, of which there are none"),
    ):
        result = run(*arguments, "--weights", weights, "--out", folder / "out")
        assert message in str(result.exception)
    assert not (folder / "out").exists()


def test_a_scene_that_does_not_fit_is_said_at_the_end_with_status_1(evaluated_runs, folder):
    write_raster(folder / "in" / "many.tif", noise((50, 56), 5))
    out = folder / "out"
    result = run(folder / "in" / "*n*.tif", "--weights", evaluated_runs / "fcn", "--out", out, "--scale", "0.9")
    assert result.exit_code == 1
    assert "1 of 2 files could not be read" in result.output and "many.tif has 5 bands" in result.output
    with rasterio.open(out / "labels/scene_labels.tif") as file:
        assert file.shape == (45, 50)


@pytest.mark.extended
def test_networks_of_the_other_protocol_and_model_files(evaluated_runs, folder):
    scene, weights = folder / "in" / "scene.tif", evaluated_runs / "fcn"
    mmseg = ["--set", "evaluate={protocol: mmseg, scale: [60, 41]}"]
    result = run(scene, "--weights", weights, "--out", folder / "mmseg", *mmseg)
    assert result.exit_code == 0, result.output
    assert "in windows of 41 x 41" in result.output
    exported = CliRunner().invoke(app, ["export", "--weights", str(weights), "--out", str(folder / "net.onnx")])
    assert exported.exit_code == 0, exported.output
    labels = []
    for name, source in (("run", weights), ("onnx", folder / "net.onnx")):
        assert run(scene, "--weights", source, "--out", folder / name).exit_code == 0
        with rasterio.open(folder / name / "labels/scene_labels.tif") as file:
            labels.append(file.read(1))
    assert (labels[0] == labels[1]).mean() > 0.99
