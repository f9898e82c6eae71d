"""Windows of GeoTIFF files and slides, and which pixels of them hold an image."""

import numpy as np
import pytest

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.rasters import RasterView, is_raster, open_raster
from psanet_tf.rasters.scaled import ScaledRaster

rasterio = pytest.importorskip("rasterio")
from raster_examples import CRS, TRANSFORM, noise, slow_resize, write_raster  # noqa: E402
from rasterio.enums import ColorInterp  # noqa: E402

RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
FOUR_FLOATS = ImageFormat(4, "float32", mean=[0.5] * 4, std=[0.3] * 4)
DEEP = ImageFormat(3, "uint16", mean=[2000] * 3, std=[900] * 3)
SIZE = (100, 150)
WINDOW = (13, 29, 60, 100)


def part(array):
    top, left, height, width = WINDOW
    return array[top : top + height, left : left + width]


@pytest.mark.parametrize("images", [PHOTOGRAPHS, DEEP, FOUR_FLOATS], ids=lambda images: images.in_words())
def test_windows_hold_what_was_written(tmp_path, images):
    pixels = noise(SIZE, images.channels, images.dtype)
    path = write_raster(tmp_path / "scene.tif", pixels)
    with open_raster(path, images) as raster:
        read, valid = raster.read(*WINDOW)
        assert raster.size == SIZE and raster.georeference.transform == tuple(TRANSFORM)[:6]
        assert rasterio.crs.CRS.from_wkt(raster.georeference.crs) == rasterio.crs.CRS.from_string(CRS)
        assert (raster.pixel_size.length, raster.pixel_size.unit) == (pytest.approx(0.2), "metre")
    assert read.dtype == images.dtype
    np.testing.assert_array_equal(read, part(pixels))
    assert valid.all()


def holes():
    has_image = np.random.default_rng(3).uniform(size=SIZE) < 0.7
    has_image[:40, :60] = False
    return has_image


def nodata_of_integers(path, pixels, has_image):
    pixels = np.maximum(pixels, 1)
    pixels[~has_image] = 0
    pixels[90:, :, 0] = 0  # black in one band alone is a colour
    return write_raster(path, pixels, nodata=0), pixels


def alpha(path, pixels, has_image):
    return write_raster(
        path, np.dstack([pixels, np.where(has_image, 200, 0)]).astype("uint8"), colorinterp=RGBA
    ), pixels


def mask(path, pixels, has_image):
    return write_raster(path, pixels, mask=has_image), pixels


@pytest.mark.parametrize("how", [nodata_of_integers, alpha, mask], ids=lambda how: how.__name__)
def test_what_holds_no_image_of_bytes(tmp_path, how):
    has_image = holes()
    path, pixels = how(tmp_path / "scene.tif", noise(SIZE), has_image)
    with open_raster(path, PHOTOGRAPHS) as raster:
        read, valid = raster.read(*WINDOW)
    np.testing.assert_array_equal(valid, part(has_image))
    np.testing.assert_array_equal(read[valid], part(pixels)[valid])


@pytest.mark.parametrize("nodata", [-9999.0, -3.4028234663852886e38, float("nan"), None])
def test_what_holds_no_image_of_floats(tmp_path, nodata):
    pixels, has_image = noise(SIZE, 4, "float32"), holes()
    # In one of the bands.
    pixels[~has_image, 2] = np.nan if nodata is None else nodata
    pixels[99, 149, 1] = np.inf
    has_image[99, 149] = False
    path = write_raster(tmp_path / "scene.tif", pixels, nodata=nodata)
    with open_raster(path, FOUR_FLOATS) as raster:
        read, valid = raster.read(0, 0, *SIZE)
    np.testing.assert_array_equal(valid, has_image)
    np.testing.assert_array_equal(read[valid], pixels[valid])


def test_an_alpha_band_is_a_channel_where_the_network_takes_four(tmp_path):
    pixels = noise(SIZE, 4)
    path = write_raster(tmp_path / "scene.tif", pixels, colorinterp=RGBA)
    with open_raster(path, ImageFormat(4, "uint8", mean=[100] * 4, std=[50] * 4)) as raster:
        read, valid = raster.read(*WINDOW)
    np.testing.assert_array_equal(read, part(pixels))
    assert valid.all()


def test_bands_are_chosen_in_any_order_and_grey_makes_a_photograph(tmp_path):
    pixels = noise(SIZE, 5)
    path = write_raster(tmp_path / "scene.tif", pixels)
    grey = write_raster(tmp_path / "grey.tif", pixels[..., 0])
    with open_raster(path, PHOTOGRAPHS, RasterView(bands=(4, 1, 3))) as raster:
        np.testing.assert_array_equal(raster.read(*WINDOW)[0], part(pixels)[..., [3, 0, 2]])
    for opened in (open_raster(grey, PHOTOGRAPHS), open_raster(path, PHOTOGRAPHS, RasterView(bands=(1,)))):
        with opened as raster:
            np.testing.assert_array_equal(raster.read(*WINDOW)[0], part(pixels)[..., [0, 0, 0]])


def test_files_that_do_not_fit_are_named_with_what_to_do(tmp_path):
    five = write_raster(tmp_path / "five.tif", noise((20, 30), 5))
    two = write_raster(tmp_path / "two.tif", noise((20, 30), 2))
    deep = write_raster(tmp_path / "deep.tif", noise((20, 30), 3, "uint16"))
    palette = write_raster(tmp_path / "palette.tif", noise((20, 30), 1), photometric="palette")
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0 and nothing that makes sense")
    for path, view, message in (
        (five, RasterView(), r"five.tif has 5 bands, the network takes 3 channels of uint8: choose .* --bands 1,2,3"),
        (two, RasterView(), r"two.tif has 2 bands, the network takes 3 channels of uint8: they are too few"),
        (five, RasterView(bands=(1, 2, 6)), r"--bands: .*five.tif has bands 1 to 5, there is no band 6"),
        (five, RasterView(bands=(1, 2)), r"--bands: the network takes 3 channels of uint8, got 2 bands"),
        (
            deep,
            RasterView(),
            r"deep.tif holds uint16, the network takes 3 channels of uint8: .*gdal_translate -ot Byte",
        ),
        (palette, RasterView(), r"palette.tif holds numbers of colours .*gdal_translate -expand rgb"),
        (broken, RasterView(), r"broken.tif is not a readable raster"),
        (five, RasterView(bands=(1, 2, 3), scale=0.001), r"scale must be at least 1/64, got 0.001"),
    ):
        with pytest.raises(ValueError, match=message):
            open_raster(path, PHOTOGRAPHS, view)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none.tif"):
        open_raster(tmp_path / "none.tif", PHOTOGRAPHS)
    plain = write_raster(tmp_path / "plain.tif", noise((20, 30)), crs=None)
    with pytest.raises(ValueError, match=r"plain.tif does not say how large its pixels are: give --scale"):
        open_raster(plain, PHOTOGRAPHS, RasterView(resolution=0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0}, "--scale: must be above 0, got 0"),
        ({"resolution": -1}, "--resolution: must be above 0, got -1"),
        ({"scale": 2, "resolution": 1}, "--scale and --resolution say the same"),
        ({"bands": ()}, "--bands: names no band"),
    ],
)
def test_views_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        RasterView(**arguments)


def test_a_damaged_block_is_named_when_it_is_read(tmp_path):
    path = write_raster(tmp_path / "scene.tif", noise((256, 256)))
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2 : len(contents) // 2 + 3000] = bytes(3000)
    path.write_bytes(contents)
    with open_raster(path, PHOTOGRAPHS) as raster:
        with pytest.raises(ValueError, match=r"scene.tif, rows 0 to 255, columns 0 to 255: cannot be read"):
            raster.read(0, 0, 256, 256)


def test_which_files_are_rasters(tmp_path):
    from PIL import Image

    small = np.zeros((4, 5, 3), "uint8")
    placed = write_raster(tmp_path / "placed.tif", small)
    big = write_raster(tmp_path / "big.TIFF", small, BIGTIFF="YES")
    huge = write_raster(tmp_path / "huge.tif", small, crs=None)
    # The numbers of rows and columns alone, which is all that is looked at.
    with rasterio.open(tmp_path / "sparse.tif", "w", driver="GTiff", width=20_000, height=10_000, count=1,
                       dtype="uint8", SPARSE_OK=True, tiled=True):  # fmt: skip
        pass
    plain = tmp_path / "plain.tif"
    Image.fromarray(small).save(plain)
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0\xff\xff\xff\xff")
    for name in ("slide.svs", "mosaic.vrt", "photo.png", "none.tif"):
        if name != "none.tif":
            (tmp_path / name).write_bytes(b"x")
    found = [path.name for path in sorted(tmp_path.iterdir()) if is_raster(path)]
    assert found == ["big.TIFF", "mosaic.vrt", "placed.tif", "slide.svs", "sparse.tif"]
    assert not is_raster(tmp_path / "none.tif")
    assert placed.exists() and big.exists() and huge.exists()


def test_mosaics_of_several_files_are_one_raster(tmp_path):
    pixels = noise((40, 60))
    write_raster(tmp_path / "left.tif", pixels[:, :30])
    write_raster(tmp_path / "right.tif", pixels[:, 30:])
    source = '<SimpleSource><SourceFilename relativeToVRT="1">{}.tif</SourceFilename><SourceBand>{}</SourceBand>' \
        '<SrcRect xOff="0" yOff="0" xSize="30" ySize="40"/><DstRect xOff="{}" yOff="0" xSize="30" ySize="40"/>' \
        "</SimpleSource>"  # fmt: skip
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">{source.format("left", band, 0)}'
        f"{source.format('right', band, 30)}</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    path = tmp_path / "mosaic.vrt"
    path.write_text(f'<VRTDataset rasterXSize="60" rasterYSize="40">{bands}</VRTDataset>')
    with open_raster(path, PHOTOGRAPHS) as raster:
        np.testing.assert_array_equal(raster.read(0, 0, 40, 60)[0], pixels)


@pytest.mark.parametrize("scale", [0.3, 0.5, 1.2])
def test_scaled_windows_are_those_of_the_whole_resized(tmp_path, monkeypatch, scale):
    monkeypatch.setattr("psanet_tf.rasters.scaled._BLOCK", 10)
    pixels, valid = noise((50, 71), 4, "float32"), np.random.default_rng(0).uniform(size=(50, 71)) < 0.8
    pixels[~valid, 0] = -9999
    path = write_raster(tmp_path / "scene.tif", pixels, nodata=-9999)
    size = tuple(round(side * scale) for side in (50, 71))
    expected, weight = slow_resize(pixels, valid, size)
    sure = abs(weight - 0.5) > 1e-6
    with open_raster(path, FOUR_FLOATS, RasterView(scale=scale)) as raster:
        assert raster.size == size
        a, _, c, _, e, f = raster.georeference.transform
        assert (a, e) == pytest.approx((0.2 * 71 / size[1], -0.2 * 50 / size[0])) and (c, f) == (500_000, 5_800_000)
        values, got = raster.read(0, 0, *size)
        np.testing.assert_array_equal(got[sure], (weight > 0.5)[sure])
        np.testing.assert_allclose(values[got], expected[got], atol=1e-5)
        top, left = size[0] // 3, size[1] // 4
        inner, inner_valid = raster.read(top, left, size[0] // 2, size[1] // 2)
        place = slice(top, top + size[0] // 2), slice(left, left + size[1] // 2)
        np.testing.assert_array_equal(inner_valid, got[place])
        np.testing.assert_allclose(inner[inner_valid], values[place][inner_valid], atol=1e-6)
    by_resolution = open_raster(path, FOUR_FLOATS, RasterView(resolution=0.2 / scale))
    with by_resolution as raster:
        assert isinstance(raster, ScaledRaster) and raster.size == size
        assert raster.pixel_size.length == pytest.approx(0.2 / scale)
