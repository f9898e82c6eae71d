"""Small rasters for tests, written by rasterio."""

import warnings

import numpy as np
import rasterio
from rasterio.transform import Affine

TRANSFORM = Affine(0.2, 0, 500_000, 0, -0.2, 5_800_000)
CRS = "EPSG:32633"


def write_raster(path, pixels, crs=CRS, transform=TRANSFORM, colorinterp=None, mask=None, **profile):
    """A GeoTIFF of an array [H, W, C] or [H, W]."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    form = {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", **profile}
    height, width, count = pixels.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        place = {"crs": crs, "transform": transform} if crs else {}
        shape = {"height": height, "width": width, "count": count, "dtype": pixels.dtype}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **shape, **place, **form) as file:
            file.write(np.moveaxis(pixels, -1, 0))
            if colorinterp:
                file.colorinterp = colorinterp
            if mask is not None:
                file.write_mask(mask)
    return path


def noise(size, channels=3, dtype="uint8", seed=0):
    """An array [H, W, C] of smooth random values."""
    generator = np.random.default_rng(seed)
    small = generator.uniform(0, 1, (size[0] // 8 + 2, size[1] // 8 + 2, channels))
    values = np.kron(small, np.ones((8, 8, 1)))[: size[0], : size[1]] * 0.7 + generator.uniform(
        0, 0.3, (*size, channels)
    )
    largest = {"uint8": 255, "uint16": 4000, "float32": 1}[dtype]
    return (values * largest).astype(dtype)


def slow_resize(pixels, valid, size):
    """By the formula, pixel by pixel: (means by triangles as wide as the reduction, how much of it holds an image)."""
    result, weights_of_images = np.zeros((*size, pixels.shape[2])), np.zeros(size)
    ratios = [source / target for source, target in zip(pixels.shape, size, strict=False)]

    def weights(index, axis):
        center, reach = (index + 0.5) * ratios[axis] - 0.5, max(1, ratios[axis])
        weight = np.maximum(0, 1 - np.abs(np.arange(pixels.shape[axis]) - center) / reach)
        return weight / weight.sum()

    for row in range(size[0]):
        for column in range(size[1]):
            weight = weights(row, 0)[:, None] * weights(column, 1) * valid
            weights_of_images[row, column] = weight.sum()
            if weight.any():
                result[row, column] = (pixels * weight[..., None]).sum((0, 1)) / weight.sum()
    return result, weights_of_images
