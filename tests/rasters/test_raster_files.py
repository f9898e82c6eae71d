"""Large pictures labelled from file to file: places, values, interruptions."""

import copy
import dataclasses
import errno

import numpy as np
import pytest
from PIL import Image
from raster_formats import FORMATS

from psanet_tf.files import NoSpaceError
from psanet_tf.inference.inputs import InputFile
from psanet_tf.inference.parallel import steps_on_all_devices
from psanet_tf.inference.raster_files import label_rasters, raster_outputs
from psanet_tf.inference.raster_parts import RasterParts
from psanet_tf.rasters import RasterView

rasterio = pytest.importorskip("rasterio")
from raster_examples import CRS, TRANSFORM, noise, write_raster  # noqa: E402

SIZE = (90, 150)


def label(segmenter, path, out, **arguments):
    said = []
    failures = label_rasters(segmenter, [InputFile(path, path.stem)], out, say=said.append, **arguments)
    return failures, said


def labels_of(out, name="scene", kind="labels"):
    with rasterio.open(raster_outputs(out, name, confidence=True)[kind]) as file:
        return file.read(1)


@pytest.fixture
def two_strips(monkeypatch):
    """Strips as if memory were scarce."""
    monkeypatch.setattr("psanet_tf.inference.raster_strips._STRIP_BYTES", 80 * 33 * 5 * 4)


@pytest.mark.parametrize("name", FORMATS)
def test_labels_are_those_of_the_window_and_lie_where_the_scene_lies(tmp_path, segmenter_of, two_strips, name):
    segmenter, images = segmenter_of(name), FORMATS[name]
    pixels = noise(SIZE, images.channels, images.dtype)
    has_image = np.ones(SIZE, bool)
    has_image[:50, :70] = False
    nodata = -1 if images.dtype == "float32" else 0
    pixels = pixels if images.dtype == "float32" else np.maximum(pixels, 1)
    pixels[~has_image] = nodata
    path = write_raster(tmp_path / "scene.tif", pixels, nodata=nodata)
    failures, said = label(segmenter, path, tmp_path / "out", confidence=True)
    assert failures == {}
    assert said == [f"{path}: 90 x 150 pixels, the pixels as they are (0.2 metre each), in windows of 33 x 33"]
    window = segmenter.labelers[0]
    filled = np.where(has_image[..., None], pixels, images.fill)
    probabilities = of_floats(window, images)(filled.astype("float32"))  # the mean is no whole number
    for kind, expected, empty in (
        ("labels", probabilities.argmax(-1), 255),
        ("confidence", np.round(probabilities.max(-1) * 255), 0),
    ):
        with rasterio.open(raster_outputs(tmp_path / "out", "scene", True)[kind]) as file:
            values = file.read(1)
            assert (file.crs, file.transform, file.nodata) == (rasterio.crs.CRS.from_string(CRS), TRANSFORM, empty)
            assert file.block_shapes == [(512, 512)] and file.compression.name == "deflate"
            assert file.tags()["CLASS_1"] == "roof"
            if kind == "labels":
                colors = file.colormap(1)
                assert [colors[index][:3] for index in range(5)] == [tuple(color) for color in segmenter.colors]
                assert colors[255] == (0, 0, 0, 0)
        assert (values[~has_image] == empty).all()
        agreement = (values == expected)[has_image].mean()
        assert agreement > 0.9999 if kind == "labels" else agreement > 0.999
    shown = np.asarray(Image.open(tmp_path / "out/overlays/scene.png"))
    assert shown.shape == (*SIZE, 3) and (shown[:10, :70] == 255).all()  # the legend lies below
    assert sorted(file.name for file in (tmp_path / "out/labels").iterdir()) == ["scene_labels.tif"]


def of_floats(window, images):
    """The same window for floating point values."""
    window = copy.copy(window)
    window.images = dataclasses.replace(images, dtype="float32")
    return window


def test_a_killed_run_goes_on_and_gives_the_same(tmp_path, segmenter_of, two_strips, monkeypatch):
    segmenter = segmenter_of("photographs")
    path = write_raster(tmp_path / "scene.tif", noise(SIZE), nodata=0)
    label(segmenter, path, tmp_path / "whole", confidence=True)
    saved, seen = [], []
    save = RasterParts.save

    def save_some(parts, band):
        if len(saved) == 4:
            raise KeyboardInterrupt
        save(parts, band)
        saved.append((band.strip, band.band))

    with monkeypatch.context() as patch:
        patch.setattr(RasterParts, "save", save_some)
        with pytest.raises(KeyboardInterrupt):
            label(segmenter, path, tmp_path / "out", confidence=True)
    assert not (tmp_path / "out/labels/scene_labels.tif").exists()
    assert saved == [(0, 0), (0, 1), (0, 2), (0, 3)]
    monkeypatch.setattr(
        RasterParts, "save", lambda parts, band: (seen.append((band.strip, band.band)), save(parts, band))
    )
    _, said = label(segmenter, path, tmp_path / "out", confidence=True)
    assert seen == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert said[1] == f"{path}: goes on where it was interrupted, 50% is there"
    for kind in ("labels", "confidence"):
        np.testing.assert_array_equal(labels_of(tmp_path / "out", kind=kind), labels_of(tmp_path / "whole", kind=kind))
    # And is not done a second time.
    _, said = label(segmenter, path, tmp_path / "out", confidence=True)
    assert said == [f"{path} is labelled already: {tmp_path / 'out/labels/scene_labels.tif'}"] and len(seen) == 4


def test_a_run_killed_after_its_labels_still_gets_its_picture(tmp_path, segmenter_of, monkeypatch):
    segmenter = segmenter_of("photographs")
    path = write_raster(tmp_path / "scene.tif", noise(SIZE), nodata=0)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    parts = tmp_path / "out/labels/.scene_labels.parts"
    for where in (
        "psanet_tf.inference.raster_files._save_picture",
        "psanet_tf.inference.raster_parts.RasterParts.remove",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, interrupted)
            with pytest.raises(KeyboardInterrupt):
                label(segmenter, path, tmp_path / "out")
        assert parts.is_dir()
    # The labels are not seen again for it.
    monkeypatch.setattr("psanet_tf.inference.raster_files.label_strip", interrupted)
    label(segmenter, path, tmp_path / "out")
    assert Image.open(tmp_path / "out/overlays/scene.png").size[0] >= SIZE[1]
    assert not parts.exists()


def test_labels_in_other_colours_are_written_anew(tmp_path, segmenter_of):
    segmenter = segmenter_of("photographs")
    path = write_raster(tmp_path / "scene.tif", noise(SIZE), nodata=0)
    label(segmenter, path, tmp_path / "out")
    before = segmenter.info
    segmenter.info = dataclasses.replace(before, colors=before.colors[::-1])
    try:
        failures, said = label(segmenter, path, tmp_path / "out")
    finally:
        segmenter.info = before
    assert failures == {} and "is labelled already" not in said[0]
    with rasterio.open(raster_outputs(tmp_path / "out", "scene")["labels"]) as file:
        assert [file.colormap(1)[index][:3] for index in range(5)] == [tuple(color) for color in before.colors[::-1]]


def test_what_has_changed_since_an_interruption_is_named(tmp_path, segmenter_of, monkeypatch):
    segmenter = segmenter_of("photographs")
    path = write_raster(tmp_path / "scene.tif", noise(SIZE), nodata=0)

    def interrupted(parts, band):
        raise KeyboardInterrupt

    for change, words in (
        (lambda: write_raster(path, noise(SIZE, seed=1), nodata=0), "the file"),
        (lambda: None, "bands or scale"),
    ):
        out = tmp_path / words
        with monkeypatch.context() as patch:
            patch.setattr(RasterParts, "save", interrupted)
            with pytest.raises(KeyboardInterrupt):
                label(segmenter, path, out)
        change()
        view = RasterView(scale=0.5) if words == "bands or scale" else RasterView()
        _, said = label(segmenter, path, out, view=view)
        assert said[1] == f"{path}: an earlier run was interrupted; {words} differ since, it starts anew"
    assert labels_of(out).shape == (45, 75)
    for other in (segmenter_of("photographs", flip=False), segmenter):
        _, said = label(other, path, out, view=RasterView(scale=0.5))
        assert "is labelled already" not in said[0]
    segmenter.path.write_bytes(b"other weights")
    _, said = label(segmenter, path, out, view=RasterView(scale=0.5))
    assert "is labelled already" not in said[0]


def test_two_devices_share_the_strips(tmp_path, segmenter_of):
    segmenter = segmenter_of("photographs")
    path = write_raster(tmp_path / "scene.tif", noise(SIZE), nodata=0)
    label(segmenter, path, tmp_path / "one")
    segmenter.labelers *= 2
    label(segmenter, path, tmp_path / "two")
    np.testing.assert_array_equal(labels_of(tmp_path / "one"), labels_of(tmp_path / "two"))


def test_steps_of_several_devices_and_their_errors():
    def work(labeler, item):
        for step in range(3):
            if item == 5 and step == 1:
                raise ValueError("five")
            yield item, step

    for labelers in ("a", "ab"):
        assert sorted(steps_on_all_devices(labelers, range(4), work)) == [(i, s) for i in range(4) for s in range(3)]
        with pytest.raises(ValueError, match="five"):
            list(steps_on_all_devices(labelers, range(7), work))


def test_files_that_cannot_be_read_are_told_and_others_done(tmp_path, segmenter_of):
    segmenter = segmenter_of("photographs")
    good = write_raster(tmp_path / "good.tif", noise((40, 50)), nodata=0)
    five = write_raster(tmp_path / "five.tif", noise((40, 50), 5))
    broken = write_raster(tmp_path / "broken.tif", noise((40, 256)))
    contents = bytearray(broken.read_bytes())
    contents[len(contents) // 2 : len(contents) // 2 + 3000] = bytes(3000)
    broken.write_bytes(contents)
    inputs = [InputFile(path, path.stem) for path in (five, broken, good)]
    failures = label_rasters(segmenter, inputs, tmp_path / "out", say=lambda line: None)
    assert set(failures) == {five, broken}
    assert "five.tif has 5 bands, the network takes 3 channels" in failures[five]
    assert "broken.tif, rows 0 to" in failures[broken]
    assert labels_of(tmp_path / "out", "good").shape == (40, 50)


def test_a_raster_smaller_than_a_crop_and_without_a_place(tmp_path, segmenter_of):
    segmenter = segmenter_of("photographs")
    pixels = noise((20, 300))
    path = write_raster(tmp_path / "plain.tif", pixels, crs=None)
    label(segmenter, path, tmp_path / "out")
    window = segmenter.labelers[0]
    one = type(window)(window.predict, 5, window.crop_size, base_size=300)
    np.testing.assert_array_equal(labels_of(tmp_path / "out", "plain"), one.labels(pixels))
    with rasterio.open(tmp_path / "out/labels/plain_labels.tif") as file:
        assert file.crs is None and file.transform.is_identity


def test_control_points_are_kept(tmp_path, segmenter_of):
    from rasterio.control import GroundControlPoint

    points = [
        GroundControlPoint(0, 0, 12.5, 50.5, 0),
        GroundControlPoint(0, 60, 12.9, 50.6, 3),
        GroundControlPoint(40, 0, 12, 50, 1),
    ]
    path = tmp_path / "scene.tif"
    write_raster(path, noise((40, 60)), crs=None)
    with rasterio.open(path, "r+") as file:
        file.gcps = points, rasterio.crs.CRS.from_epsg(4326)
    label(segmenter_of("photographs"), path, tmp_path / "out", view=RasterView(scale=2))
    with rasterio.open(tmp_path / "out/labels/scene_labels.tif") as file:
        got, crs = file.gcps
    assert crs == rasterio.crs.CRS.from_epsg(4326)
    expected = [(2 * point.row, 2 * point.col, point.x, point.y, point.z) for point in points]
    assert [(point.row, point.col, point.x, point.y, point.z) for point in got] == expected


def test_a_full_disk_leaves_what_is_finished(tmp_path, segmenter_of, monkeypatch):
    segmenter = segmenter_of("photographs")
    path = write_raster(tmp_path / "scene.tif", noise(SIZE), nodata=0)
    savez, count = np.savez_compressed, []

    def full(file, **arrays):
        count.append(file)
        if len(count) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        savez(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        with pytest.raises(NoSpaceError, match=r"no space left to write .*0_2.npz"):
            label(segmenter, path, tmp_path / "out")
    _, said = label(segmenter, path, tmp_path / "out")
    assert said[1].endswith("goes on where it was interrupted, 50% is there")
    assert labels_of(tmp_path / "out").shape == SIZE
