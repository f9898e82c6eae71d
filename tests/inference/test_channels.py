"""All ways of labelling images see images of any number of channels as their format says."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSANet, Segmenter, SlidingWindow, attention_maps
from psanet_tf.data.catalog import numbered_classes
from psanet_tf.data.image_format import ImageFormat
from psanet_tf.export.graph.mmseg import GraphMMSeg
from psanet_tf.export.graph.whole import GraphWhole
from psanet_tf.export.graph.window import GraphWindow
from psanet_tf.export.metadata import export_metadata
from psanet_tf.inference.mmseg_protocol import MMSegProtocol
from psanet_tf.inference.video import label_video
from psanet_tf.inference.whole_image import WholeImage
from psanet_tf.keras_api import keras
from psanet_tf.runtimes.limits import max_pixels_of
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.weights.description import Description, describe, images_of

CLASSES = 3
FORMATS = [
    ImageFormat(1, "uint16", mean=[20000], std=[9000]),
    ImageFormat(5, "float32", mean=[0, 1, 2, 3, 4], std=[1, 2, 3, 4, 5]),
]
PROTOCOLS = {
    "sliding window": (SlidingWindow, GraphWindow, {"crop_size": (9, 13), "base_size": 31, "scales": (1.0, 1.5)}),
    "mmseg": (MMSegProtocol, GraphMMSeg, {"scale": (40, 30), "flip": True}),
    "whole": (WholeImage, GraphWhole, {"padded": True}),
}


def image_of(images, size=(21, 27)):
    rng = np.random.default_rng(0)
    values = images.fill + images.scale * rng.normal(size=(*size, images.channels))
    return np.clip(values, 0, 65535).astype("uint16") if images.dtype == "uint16" else values.astype("float32")


def network_of(images):
    """Something that sees single pixels and all channels, in the place of a network."""
    weights = np.random.default_rng(1).normal(size=(images.channels, CLASSES)).astype(np.float32)
    return lambda normalized: tf.tensordot(tf.sin(normalized), weights, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("images", FORMATS, ids=lambda images: images.in_words())
def test_protocols_normalize_as_the_format_says_and_exports_do_the_same(images, protocol):
    local, exported, arguments = PROTOCOLS[protocol]
    network, image = network_of(images), image_of(images)
    labeler = local(network, CLASSES, images=images, **arguments)
    probabilities = labeler(image)
    # In float64, and with nothing left to normalize.
    plain = ImageFormat(images.channels, "float32", mean=[0] * images.channels, std=[1] * images.channels)
    normalized = ((image.astype(float) - images.mean) / images.std).astype(np.float32)
    expected = local(network, CLASSES, images=plain, **arguments)(normalized)
    # MMSegmentation rounds resized integers.
    np.testing.assert_allclose(probabilities, expected, atol=1e-3 if protocol == "mmseg" else 1e-4)
    in_graph = exported(network, CLASSES, images=images, **arguments).labels(tf.constant(image)).numpy()
    first, second = np.sort(probabilities, -1)[..., :-3:-1].transpose(2, 0, 1)
    sure = first - second > 1e-3
    assert sure.mean() > 0.8
    assert np.array_equal(in_graph[sure], labeler.labels(image)[sure])
    with pytest.raises(ValueError, match=rf"image must be {images.dtype} \[H, W, {images.channels}\], got uint8"):
        labeler.labels(np.zeros((20, 20, 3), np.uint8))


@pytest.fixture(scope="module")
def model():
    return PSANet(CLASSES, blocks=(1, 1, 1, 1), width=4, input_shape=(25, 25, 5))


def test_a_network_of_other_channels_must_be_told_what_they_are(model):
    with pytest.raises(
        ValueError, match="nothing says how images of 5 channels are normalized for 'psanet': give images="
    ):
        Segmenter(model, evaluate={"base_size": 25})
    with pytest.raises(ValueError, match="images: 'psanet' takes 5 channels, got 1 channel of uint16"):
        Segmenter(model, evaluate={"base_size": 25}, images=FORMATS[0])
    info = Segmenter(model, evaluate={"base_size": 25}, images=FORMATS[1]).info
    two = PSANet(CLASSES, blocks=(1, 1, 1, 1), width=4, input_shape=(25, 25, 2), use_psa=False)
    with pytest.raises(ValueError, match=r"'psanet' takes images of 2 channels, its description is of 5"):
        describe(two, Description(info))


def test_a_segmenter_and_attention_of_such_a_network(model, tmp_path):
    images = FORMATS[1]
    image = image_of(images)
    segmenter = Segmenter(model, evaluate={"base_size": 25}, images=images)
    assert segmenter.probabilities(image).shape == (21, 27, CLASSES)
    assert segmenter.overlay(image).shape == (21, 27, 3)
    np.save(tmp_path / "image.npy", image)
    assert np.array_equal(segmenter.labels(tmp_path / "image.npy"), segmenter.labels(image))
    assert np.array_equal(segmenter.labels((tmp_path / "image.npy").read_bytes()), segmenter.labels(image))
    with pytest.raises(TypeError, match=r"a NumPy array float32 \[H, W, 5\], got int"):
        segmenter.labels(3)
    maps = segmenter.attention(image, [(3, 4)])
    plain = ImageFormat(5, "float32", mean=[0] * 5, std=[1] * 5)
    expected = attention_maps(model, images.normalize(image), [(3, 4)], plain)
    np.testing.assert_allclose(maps.collect, expected.collect, atol=1e-6)
    with pytest.raises(
        ValueError, match="clip.mp4: a video holds photographs, the network labels images of 5 channels"
    ):
        label_video(segmenter.labelers[0], "clip.mp4", tmp_path / "out.mp4", segmenter.info)
    # Files carry it along.
    describe(model, Description(segmenter.info))
    model.save(tmp_path / "model.keras")
    assert images_of(keras.saving.load_model(tmp_path / "model.keras")) == images
    model.description = None


def test_an_export_needs_to_know_what_the_images_are(model):
    info = numbered_classes(CLASSES)
    with pytest.raises(ValueError, match="the network takes 5 channels, but the images of 'unnamed' have 3"):
        export_metadata(model, info)
    unknown = dataclasses.replace(info, images=ImageFormat(5, "float32"), long_side=25)
    with pytest.raises(ValueError, match="nothing says how images of 5 channels of float32 are normalized"):
        export_metadata(model, unknown)
    known = dataclasses.replace(unknown, images=ImageFormat(12, "uint16", mean=[0] * 12, std=[1] * 12))
    metadata = export_metadata(model, dataclasses.replace(unknown, images=FORMATS[1]))
    assert metadata.images == FORMATS[1]
    assert ModelMetadata.from_json(metadata.to_json()) == metadata
    # As many bytes as a photograph of the largest size.
    assert max_pixels_of(known.images) * 24 <= 3 * max_pixels_of(info.images) < max_pixels_of(known.images) * 24 + 24
