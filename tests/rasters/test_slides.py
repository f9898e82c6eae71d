"""Whole-slide images, by levels."""

import numpy as np
import pytest

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.rasters import RasterView, open_raster

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("openslide")
from raster_examples import noise, slow_resize, write_raster  # noqa: E402


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """(path, pixels of the scan, pixels of a level four times smaller) of a tiled TIFF that OpenSlide reads."""
    pixels = noise((512, 768))
    path = write_raster(tmp_path_factory.mktemp("slides") / "slide.svs", pixels, crs=None, photometric="rgb")
    with rasterio.open(path, "r+") as file:
        file.build_overviews([4], rasterio.enums.Resampling.average)
        smaller = np.moveaxis(file.read(out_shape=(3, 128, 192)), 0, -1)
    return path, pixels, smaller


def test_the_scan_and_a_level(slide):
    path, pixels, smaller = slide
    with open_raster(path, PHOTOGRAPHS) as raster:
        read, valid = raster.read(100, 200, 300, 150)
        assert raster.size == (512, 768) and raster.georeference.crs is None
        np.testing.assert_array_equal(read, pixels[100:400, 200:350])
        assert valid.all()
    with open_raster(path, PHOTOGRAPHS, RasterView(scale=0.25)) as raster:
        assert raster.size == (128, 192)
        np.testing.assert_array_equal(raster.read(16, 8, 100, 120)[0], smaller[16:116, 8:128])


def test_other_scales_are_resized_from_the_next_larger_level(slide):
    path, _, smaller = slide
    with open_raster(path, PHOTOGRAPHS, RasterView(scale=0.125)) as raster:
        assert raster.size == (64, 96)
        # But for the border, which is not the part's.
        expected, _ = slow_resize(smaller[:32, :48], np.ones((32, 48), bool), (16, 24))
        assert np.abs(raster.read(0, 0, 15, 23)[0] - expected[:15, :23]).max() <= 0.51
    with open_raster(path, PHOTOGRAPHS, RasterView(scale=0.5)) as raster:
        assert raster.size == (256, 384)


def test_slides_that_cannot_be_read(slide, tmp_path):
    path = tmp_path / "no.svs"
    path.write_bytes(b"no slide")
    with pytest.raises(ValueError, match=r"no.svs is not a readable slide"):
        open_raster(path, PHOTOGRAPHS)
    with pytest.raises(ValueError, match=r"slide.svs is a slide of 3 channels of uint8, the network takes 1 channel"):
        open_raster(slide[0], ImageFormat(1, "uint8", mean=[0], std=[1]))
    with pytest.raises(ValueError, match=r"slide.svs is a slide, whose channels are red, green and blue"):
        open_raster(slide[0], PHOTOGRAPHS, RasterView(bands=(1,)))
    with pytest.raises(ValueError, match=r"slide.svs does not say how large its pixels are"):
        open_raster(slide[0], PHOTOGRAPHS, RasterView(resolution=0.5))
