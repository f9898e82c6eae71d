"""Formats of images that rasters hold."""

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat

FORMATS = {
    "photographs": PHOTOGRAPHS,
    "deep": ImageFormat(3, "uint16", mean=[2000] * 3, std=[900] * 3),
    "floats": ImageFormat(4, "float32", mean=[0.5] * 4, std=[0.3] * 4),
}
