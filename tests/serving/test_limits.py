"""What a request may ask of an exported model, and that its graph refuses more before there is any work."""

import json

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.export.graph.whole import GraphWhole
from psanet_tf.export.metadata import export_metadata
from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.errors import ServingError, from_tensorflow
from psanet_tf.runtimes.limits import MAX_IMAGES, MAX_PIXELS, MAX_SEEN_PIXELS, MAX_WHOLE_PIXELS, request_limits
from psanet_tf.runtimes.metadata import ModelMetadata


@pytest.fixture(scope="module")
def metadata(network, classes, evaluate):
    return export_metadata(network, classes, evaluate)


def refused(servable, signature, **inputs):
    with pytest.raises(ServingError) as caught:
        servable.run(signature, inputs)
    assert caught.value.code == "INVALID_ARGUMENT"
    return caught.value.message


def image_bytes(*data):
    return np.array([*data, None], object)[:-1]


def png(size=(33, 33), said=None):
    """A PNG of `size`, whose header says the size `said`."""
    data = bytearray(tf.io.encode_png(made_image(size)).numpy())
    if said is not None:
        data[16:24] = said[1].to_bytes(4, "big") + said[0].to_bytes(4, "big")
    return bytes(data)


def test_messages_are_the_assertions_texts_alone():
    around = "{{function_node __inference_f_1}} {{function_node __inference_g_2}} "
    text = f"Graph execution error:\n\n{around}assertion failed: [points has 5 points]\n\t [[{{{{node Assert}}}}]]"
    error = from_tensorflow(tf.errors.InvalidArgumentError(None, None, text))
    assert (error.code, error.message) == ("INVALID_ARGUMENT", "points has 5 points")


def test_points_are_bounded_by_the_memory_of_their_maps(servable, metadata):
    # Two directions of 3 x 3 positions.
    assert metadata.max_points == 64 * 2**20 // (4 * 2 * 9)
    points = np.ones((2, metadata.max_points // 2 + 1, 2), np.float32)
    message = refused(servable, "attention", image_bytes=image_bytes(png(), png()), points=points)
    assert message == (
        f"points has {points.size // 2} points of all images together, a request may have {metadata.max_points}"
    )


@pytest.mark.parametrize("signature", ["predict_bytes", "attention"])
def test_images_and_their_pixels_are_bounded(servable, metadata, signature):
    def ask(*data):
        points = {"points": np.ones((len(data), 1, 2), np.float32)} if signature == "attention" else {}
        return refused(servable, signature, image_bytes=image_bytes(*data), **points)

    assert metadata.max_images == MAX_IMAGES
    assert ask(*[png()] * 17) == "image_bytes has 17 images, a request may have 16: send them in several requests"
    # Each alone has half of what is allowed, and one row more.
    huge = png(said=(4001, 4000))
    assert ask(huge, huge) == (
        f"image_bytes have 32008000 pixels together, a request may have {MAX_PIXELS}: send them in several requests"
    )
    # Told before the first one is decoded, which is cut short.
    assert ask(png()[:60], b"GIF89a" + b"\0" * 40).startswith("image_bytes[1] is no JPEG or PNG image")


@pytest.mark.parametrize("signature", ["serving_default", "probabilities"])
def test_pixels_of_a_batch_are_bounded(servable, metadata, signature):
    limit = {"serving_default": metadata.max_label_pixels, "probabilities": metadata.max_probability_pixels}[signature]
    batch = limit // 33**2 + 1
    images = np.zeros((batch, 33, 33, 3), np.uint8)
    assert refused(servable, signature, images=images) == (
        f"images have {batch} x 33 x 33 pixels, a request to this signature may have {limit} of all images"
    )


def test_padding_counts():
    image = np.zeros((1, 200, 3), np.uint8)  # is padded to nine rows
    spec = [tf.TensorSpec([None, None, 3], tf.uint8)]
    labels = []
    for limit in (9 * 201, 9 * 201 - 1):
        labeler = GraphWhole(lambda images: images, 3, True, max_seen_pixels=limit)
        labels.append(tf.function(labeler.labels, spec, autograph=False))
    assert labels[0](image).shape == (1, 200)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="padded to 9 rows x 201 columns; its network may see 1808"
    ):
        labels[1](image)


def test_what_each_kind_of_export_takes():
    classes, crop = 150, (465, 465)
    window = request_limits(PHOTOGRAPHS, classes, crop, 0, 900, 2)
    assert (window.max_pixels, window.max_images, window.max_seen_pixels) == (MAX_PIXELS, MAX_IMAGES, None)
    # Four crops are always taken: servers join as many.
    assert window.max_probability_pixels == 4 * 465 * 465
    assert window.max_label_pixels == 2**30 // (4 * classes)
    assert window.max_points == 64 * 2**20 // (4 * 900 * 2)
    few_classes = request_limits(PHOTOGRAPHS, 2, crop)
    assert few_classes.max_label_pixels == 4 * MAX_WHOLE_PIXELS
    assert few_classes.max_probability_pixels == 256 * 2**20 // 8
    assert few_classes.max_points is None
    own_size = request_limits(PHOTOGRAPHS, classes, None, None)
    assert (own_size.max_pixels, own_size.max_seen_pixels) == (MAX_WHOLE_PIXELS, MAX_SEEN_PIXELS)
    assert own_size.max_label_pixels == MAX_WHOLE_PIXELS  # an image is always taken
    resized = request_limits(PHOTOGRAPHS, classes, None, 3585 * 1793)
    assert (resized.max_pixels, resized.max_seen_pixels) == (MAX_PIXELS, 3585 * 1793)
    bands = request_limits(ImageFormat(12, "uint16", [0.0] * 12, [1.0] * 12), classes, crop)
    assert bands.max_pixels == MAX_PIXELS // 8


def test_metadata_of_earlier_exports_bound_nothing(metadata):
    fields = json.loads(metadata.to_json())
    for name in ("max_images", "max_seen_pixels", "max_label_pixels", "max_probability_pixels", "max_points"):
        del fields[name]
    earlier = ModelMetadata.from_json(json.dumps(fields))
    assert (earlier.max_pixels, earlier.max_images, earlier.max_points) == (MAX_PIXELS, None, None)
