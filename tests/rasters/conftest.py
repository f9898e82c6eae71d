"""What labels rasters in tests."""

import types

import numpy as np
import pytest
import tensorflow as tf
from raster_formats import FORMATS

from psanet_tf.data.catalog import DatasetInfo, distinct_colors
from psanet_tf.inference.sliding_window import SlidingWindow

CLASSES = ("road", "roof", "tree", "water", "field")
CROP = (33, 33)


@pytest.fixture
def segmenter_of(tmp_path):
    """``segmenter_of("photographs")`` -> what `label_rasters` asks of a `Segmenter`; a convolution is its network."""
    (tmp_path / "weights.bin").write_bytes(b"weights")

    def make(name, flip=True):
        images, generator = FORMATS[name], np.random.default_rng(1)
        kernel = generator.normal(size=(3, 3, images.channels, len(CLASSES))).astype("float32")
        position = generator.normal(size=(*CROP, len(CLASSES))).astype("float32")
        predict = tf.function(lambda crops: tf.nn.conv2d(crops, kernel, 1, "SAME") + position, reduce_retracing=True)
        window = SlidingWindow(predict, len(CLASSES), CROP, 150, flip=flip, images=images)
        info = DatasetInfo("test", CLASSES, distinct_colors(len(CLASSES)), images=images)
        return types.SimpleNamespace(
            labelers=(window,), info=info, images=images, classes=CLASSES, colors=info.colors, temperature=1.0,
            path=tmp_path / "weights.bin",
        )  # fmt: skip

    return make
