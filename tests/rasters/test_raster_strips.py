"""Strips of a raster against the sliding window on the whole array."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.data.image_format import ImageFormat
from psanet_tf.inference import raster_strips
from psanet_tf.inference.raster_strips import NO_LABEL, label_strip, strips_of
from psanet_tf.inference.sliding_window import SlidingWindow
from psanet_tf.rasters.raster import Raster

CLASSES = 5
FORMATS = [ImageFormat(), ImageFormat(4, "float32", mean=[0.5, 0.4, 0.3, 0.2], std=[0.3] * 4)]


class ArrayRaster(Raster):
    """A raster in memory, which counts what is read of it."""

    def __init__(self, pixels, valid, images):
        self.pixels, self.valid, self.images = pixels, valid, images
        self.size, self.reads = pixels.shape[:2], np.zeros(pixels.shape[:2], int)

    def read(self, top, left, height, width):
        assert top >= 0 and left >= 0 and top + height <= self.size[0] and left + width <= self.size[1]
        place = slice(top, top + height), slice(left, left + width)
        self.reads[place] += 1
        return self.pixels[place], self.valid[place]

    def close(self):
        pass


def example(size, images):
    generator = np.random.default_rng(0)
    pixels = (generator.uniform(0, 1, (*size, images.channels)) * (255 if images.is_photograph else 1)).astype(
        images.dtype
    )
    valid = np.ones(size, bool)
    valid[: size[0] // 2, : size[1] // 3] = False
    valid[:, -size[1] // 4 :] = False
    valid[generator.uniform(size=size) < 0.05] = False
    return pixels, valid


def network_of(images, crop, seen=None):
    """Something whose answer depends on neighbours, on where in the crop a pixel is, and on the crop's mean."""
    generator = np.random.default_rng(1)
    kernel = generator.normal(size=(3, 3, images.channels, CLASSES)).astype("float32")
    position = generator.normal(size=(*crop, CLASSES)).astype("float32")

    def predict(crops):
        if seen is not None:
            seen.append(crops.shape[0])
        return tf.nn.conv2d(crops, kernel, 1, "SAME") + position + tf.reduce_mean(crops, [1, 2, 3])[:, None, None, None]

    return predict


def labelled(window, raster, strips, first_band=0):
    labels = np.zeros(raster.size, np.uint8)
    confidence = np.zeros(raster.size, np.uint8)
    for strip in range(len(strips.bounds)):
        columns = slice(*strips.columns(strip))
        for band in label_strip(window, raster, strips, strip, first_band):
            if band is not None:
                labels[slice(*strips.rows(band.band)), columns] = band.labels
                confidence[slice(*strips.rows(band.band)), columns] = band.confidence
    return labels, confidence


@pytest.mark.parametrize(
    "images",
    [FORMATS[0], pytest.param(FORMATS[1], marks=pytest.mark.extended)],
    ids=lambda images: images.in_words(),
)
@pytest.mark.parametrize(
    ("size", "crop", "stride_rate", "flip", "batch_size", "strips"),
    [
        ((61, 97), (17, 25), 2 / 3, True, 2, 1),
        ((61, 97), (17, 25), 2 / 3, True, 6, 4),
        ((50, 83), (17, 17), 0.3, False, 3, 3),  # several crops reach over each seam
        ((64, 64), (16, 16), 1.0, True, 2, 4),  # none does
        ((11, 70), (17, 17), 2 / 3, True, 2, 2),  # lower than a crop
        ((40, 9), (17, 17), 2 / 3, False, 1, 1),
        ((5, 6), (17, 17), 2 / 3, True, 2, 3),
    ],
)
def test_labels_are_those_of_the_window_on_the_whole_array(size, crop, stride_rate, flip, batch_size, strips, images):
    pixels, valid = example(size, images)
    window = SlidingWindow(
        network_of(images, crop), CLASSES, crop, max(size), (1.0,), flip, stride_rate, batch_size, images
    )
    raster = ArrayRaster(pixels, valid, images)
    layout = strips_of(window, size, at_least=strips)
    assert len(layout.bounds) == min(strips, len(layout.column_origins))
    labels, confidence = labelled(window, raster, layout)
    # What holds no image is the mean colour there, which is 0 once normalized.
    plain = ImageFormat(images.channels, "float32", mean=[0] * images.channels, std=[1] * images.channels)
    normalized = np.where(valid[..., None], images.normalize(tf.constant(pixels)), 0).astype("float32")
    whole = SlidingWindow(window.predict, CLASSES, crop, max(size), (1.0,), flip, stride_rate, batch_size, plain)
    expected = whole(normalized)
    np.testing.assert_array_equal(labels[valid], expected.argmax(-1)[valid])
    np.testing.assert_array_equal(confidence[valid], np.round(expected.max(-1) * 255)[valid])
    assert (labels[~valid] == NO_LABEL).all() and (confidence[~valid] == 0).all()
    assert (confidence[valid] > 0).all()
    reads_of_a_strip = raster.reads.max() if len(layout.bounds) == 1 else 1
    assert reads_of_a_strip == 1


@pytest.mark.parametrize("stride_rate", [pytest.param(0.3, marks=pytest.mark.extended), 2 / 3, 1.0])
def test_a_strip_that_goes_on_gives_the_same_bands(stride_rate):
    images, size, crop = FORMATS[0], (61, 97), (17, 25)
    pixels, valid = example(size, images)
    window = SlidingWindow(network_of(images, crop), CLASSES, crop, max(size), stride_rate=stride_rate, images=images)
    raster = ArrayRaster(pixels, valid, images)
    layout = strips_of(window, size, at_least=2)
    labels, confidence = labelled(window, raster, layout)
    for first_band in (1, len(layout.row_origins) - 1):
        again = labelled(window, raster, layout, first_band)
        row = layout.rows(first_band)[0]
        np.testing.assert_array_equal(again[0][row:], labels[row:])
        np.testing.assert_array_equal(again[1][row:], confidence[row:])
        assert not again[0][:row].any()


def test_crops_without_an_image_are_not_seen():
    images, size, crop = FORMATS[0], (64, 64), (16, 16)
    seen = []
    window = SlidingWindow(network_of(images, crop, seen), CLASSES, crop, 64, flip=False, stride_rate=1.0, batch_size=1)
    valid = np.zeros(size, bool)
    valid[20, 40] = valid[50, 3] = True
    labels, _ = labelled(window, ArrayRaster(example(size, images)[0], valid, images), strips_of(window, size))
    assert len(seen) == 2
    assert ((labels != NO_LABEL) == valid).all()


def test_memory_bounds_the_width_of_strips(monkeypatch):
    window = SlidingWindow(lambda crops: crops, 150, (465, 465))
    for size in ((50_000, 50_000), (50_000, 49_911), (100, 50_000), (465, 465)):
        strips = strips_of(window, size)
        widest = max(strips.columns(strip)[1] - strips.columns(strip)[0] for strip in range(len(strips.bounds)))
        rows = strips.row_origins
        kept = max([rows[i] + 465 - rows[i + 1] for i in range(len(rows) - 1)], default=0)
        assert kept * widest * 150 * 4 < 1.2 * raster_strips._STRIP_BYTES
        # Strips share all columns out, and little is seen twice.
        assert [strips.columns(strip)[0] for strip in range(1, len(strips.bounds))] == [
            strips.columns(strip)[1] for strip in range(len(strips.bounds) - 1)
        ]
        crops = sum(len(strips.crops_across(strip)) for strip in range(len(strips.bounds)))
        assert crops <= 1.15 * len(strips.column_origins)


def test_the_picture_is_made_of_evenly_spread_pixels(monkeypatch):
    monkeypatch.setattr("psanet_tf.inference.raster_strips._PICTURE_SIDE", 30)
    images, size, crop = FORMATS[0], (61, 97), (17, 25)
    pixels, valid = example(size, images)
    window = SlidingWindow(network_of(images, crop), CLASSES, crop, max(size), images=images)
    layout = strips_of(window, size, at_least=2)
    rows = {}
    for strip in range(2):
        for band in label_strip(window, ArrayRaster(pixels, valid, images), layout, strip):
            if band is not None:
                rows.setdefault(band.band, []).append(band.picture)
    picture = np.vstack([np.hstack(rows[band]) for band in sorted(rows)])
    assert layout.picture_step == 4
    np.testing.assert_array_equal(picture, pixels[2::4, 2::4])
    assert not np.shares_memory(layout.shown(pixels, 0, 0), pixels)  # or all bands would be kept for one picture
