"""MMSegmentation's prediction as a graph against the one that defines it, and an export of it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import numbered_classes
from psanet_tf.data.pixels import decode_image
from psanet_tf.export.graph import labeler as graph_labeler
from psanet_tf.export.graph.mmseg import GraphMMSeg, fitted_size
from psanet_tf.export.graph.whole import GraphWhole
from psanet_tf.export.metadata import export_metadata
from psanet_tf.export.saved_model import export_saved_model
from psanet_tf.export.verification import made_image, verify_export
from psanet_tf.inference.mmseg_protocol import MMSegProtocol
from psanet_tf.inference.mmseg_protocol import fitted_size as eager_fitted_size
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.inference.whole_image import WholeImage, any_size
from psanet_tf.runtimes.limits import MAX_WHOLE_PIXELS
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.runtimes.saved_model import SavedModelSession, operations_on_disk
from psanet_tf.serving.client.client import Client
from psanet_tf.serving.client.tiles import label_by_tiles
from psanet_tf.weights.description import Description, describe

SLIDE = {"scale": (90, 60), "crop_size": (40, 33), "stride": (27, 22)}


def graph_labels(labeler, image):
    spec = tf.TensorSpec([None, None, 3], tf.uint8)
    return tf.function(labeler.labels, [spec], autograph=False)(image).numpy()


@pytest.fixture(scope="module")
def predict():
    """Logits of 6 classes that depend on colours and, as padding makes it, on the place in the crop."""
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(3, 3, 3, 6)).astype(np.float32)

    def logits(crops):
        height, width = tf.shape(crops)[1], tf.shape(crops)[2]
        down, across = tf.linspace(-1.0, 1.0, height)[:, None], tf.linspace(-1.0, 1.0, width)[None]
        place = (down + 2 * across)[..., None] * tf.linspace(-1.0, 1.0, 6)
        return tf.nn.conv2d(crops, kernel, 1, "SAME") + place

    return logits


@pytest.mark.parametrize(
    ("size", "arguments", "align_corners"),
    [
        ((50, 71), {"scale": (90, 60)}, False),
        ((50, 71), {"scale": (90, 60)}, True),
        ((131, 90), {"scale": (64, 64), "scales": (0.5, 1.75), "flip": True}, False),
        ((120, 47), {**SLIDE, "scales": (1.3,), "flip": True}, False),
        ((20, 100), SLIDE, True),  # fitted into 18 x 90: rows smaller than a crop
        ((8, 8), {**SLIDE, "scale": (30, 30)}, False),  # smaller than a crop both ways
        ((1, 70), {"scale": (90, 60)}, True),
    ],
)
def test_labels_are_those_of_the_protocol(predict, monkeypatch, size, arguments, align_corners):
    monkeypatch.setattr(graph_labeler, "_BAND_BYTES", 7 * size[1] * 6 * 4)  # bands of 7 rows
    image = made_image(size, seed=3)
    protocol = MMSegProtocol(predict, 6, align_corners=align_corners, **arguments)
    expected = protocol(image)
    assert len(np.unique(expected.argmax(-1))) > 2
    labels = graph_labels(GraphMMSeg(predict, 6, align_corners=align_corners, **arguments), image)
    assert labels.shape == size
    assert labels.dtype == np.uint8
    first, second = np.sort(expected, -1)[..., -1:-3:-1].transpose(2, 0, 1)
    decided = first - second > 1e-4
    np.testing.assert_array_equal(labels[decided], expected.argmax(-1)[decided])
    assert decided.mean() > 0.9


@pytest.mark.parametrize("padded", [False, True])
def test_images_at_their_own_size_are_labelled_as_whole_images(predict, padded):
    image = made_image((44, 61), seed=3)
    expected = WholeImage(predict, 6, padded).labels(image)
    np.testing.assert_array_equal(graph_labels(GraphWhole(predict, 6, padded), image), expected)
    assert (WholeImage(predict, 6, not padded).labels(image) != expected).any()


def test_images_are_fitted_to_the_pixel():
    graph = tf.function(lambda size: fitted_size(size, (2048, 512)), [tf.TensorSpec([2], tf.int32)], autograph=False)
    generator = np.random.default_rng(0)
    for size in [(1, 1), (1, 9999), (1024, 2048), (683, 512), *generator.integers(1, 3000, (200, 2))]:
        assert tuple(graph(tf.constant(size, tf.int32)).numpy()) == eager_fitted_size(size, (2048, 512))


@pytest.fixture(scope="module")
def mmseg_network(make_network):
    return make_network(num_classes=5, variant="mmseg", mask_size=(6, 6), align_corners=True, psa_type="collect")


@pytest.fixture(scope="module")
def section():
    return EvaluateSection(protocol="mmseg", mode="slide", **SLIDE)


@pytest.fixture(scope="module")
def servable(mmseg_network, section, tmp_path_factory):
    """An export of a network whose file carries the protocol, as a server loads it; not checked yet."""
    describe(mmseg_network, Description(numbered_classes(5), section))
    folder = tmp_path_factory.mktemp("mmseg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("psanet_tf.export.saved_model.verify_export", lambda *arguments: None)
        return SavedModelSession(export_saved_model(mmseg_network, folder, numbered_classes(5), warm_up=False).path)


@pytest.fixture(scope="module")
def metadata(servable):
    return ModelMetadata.from_json((servable.path / "assets" / "metadata.json").read_text())


def test_an_export_labels_by_the_protocol_and_its_check_tells_another(mmseg_network, servable, metadata, monkeypatch):
    # Loading it once more would take seconds.
    monkeypatch.setattr("psanet_tf.export.verification.SavedModelSession", lambda *_: servable)
    monkeypatch.setattr(servable, "close", lambda: None)
    network = any_size(mmseg_network)
    agreement = verify_export(servable.path, network, metadata)
    assert agreement.labels >= 0.999
    assert agreement.largest < 1e-4
    with pytest.raises(ValueError, match="does not answer as the Keras model does"):
        verify_export(servable.path, network, dataclasses.replace(metadata, scale=(40, 24)))


def test_metadata_of_an_export_are_of_its_protocol(servable, metadata, section):
    answer = servable.run("metadata", {"keys": np.array([b"all"], object)})["values"][0]
    assert ModelMetadata.from_json(answer) == metadata
    for name in ("protocol", "mode", "scale", "crop_size", "stride", "scales", "flip"):
        assert getattr(metadata, name) == getattr(section, name), name
    assert (metadata.input_size, metadata.base_size, metadata.stride_rate) == (None, None, None)
    assert servable.signatures["serving_default"].inputs["images"].shape == (-1, -1, -1, 3)


def test_such_exports_hold_stock_operations_only(servable, stock_operations):
    assert operations_on_disk(servable.path) - stock_operations == set()


def test_what_each_kind_of_export_says_of_its_labels(mmseg_network, network, classes, section):
    def said(model, evaluate, whole=False):
        info = classes if model is network else numbered_classes(5)
        metadata = export_metadata(model, info, evaluate, whole=whole)
        assert ModelMetadata.from_json(metadata.to_json()) == metadata
        return metadata

    fitted_whole = said(mmseg_network, EvaluateSection(protocol="mmseg", scale=(90, 60), scales=(0.5, 1.0)))
    assert (fitted_whole.protocol, fitted_whole.mode, fitted_whole.scale) == ("mmseg", "whole", (90, 60))
    assert (fitted_whole.scales, fitted_whole.crop_size, fitted_whole.stride) == ((0.5, 1.0), None, None)
    at_its_size = said(mmseg_network, section, whole=True)
    assert (at_its_size.protocol, at_its_size.mode, at_its_size.scale) == (None, "whole", None)
    assert (at_its_size.scales, at_its_size.flip, at_its_size.max_pixels) == ((1.0,), False, MAX_WHOLE_PIXELS)
    window = said(network, EvaluateSection(base_size=60))
    assert (window.protocol, window.mode, window.crop_size) == ("semseg", "slide", (33, 33))
    assert (window.input_size, window.base_size, window.stride_rate) == ((33, 33), 60, 2 / 3)
    resized_whole = said(network, EvaluateSection(base_size=60, scales=(0.75,)), whole=True)
    assert (resized_whole.protocol, resized_whole.mode, resized_whole.base_size) == ("semseg", "whole", 60)
    assert (resized_whole.input_size, resized_whole.crop_size, resized_whole.stride_rate) == (None, None, None)
    assert (resized_whole.scales, resized_whole.flip) == ((0.75,), True)


def test_clients_cut_images_by_what_the_protocol_allows(metadata, monkeypatch):
    monkeypatch.setattr(Client, "_label_bytes", lambda self, data: decode_image(data, "tile")[..., 0])
    client = Client("http://127.0.0.1:1/psanet")
    image = np.random.default_rng(0).integers(0, 255, (50, 900, 3), dtype=np.uint8)
    client._metadata = dataclasses.replace(metadata, max_pixels=44_999)
    with pytest.raises(ValueError, match=r"has 50 x 900 pixels, .* fits an image as a whole into \[90, 60\] pixels"):
        client.labels(image)
    client._metadata = dataclasses.replace(metadata, max_pixels=45_000)
    with monkeypatch.context() as patch:
        patch.setattr("psanet_tf.serving.client.client._MAX_UPLOAD_BYTES", 10_000)
        with pytest.raises(ValueError, match=r"pixels and \d+ bytes, a request .* or give it as a JPEG file"):
            client.labels(image)
    # At their own size tiles are seen as the image is, but may have no more pixels than a request: 212 x 212.
    client._metadata = dataclasses.replace(metadata, protocol=None, scale=None, max_pixels=44_999)
    sizes = []
    monkeypatch.setattr(
        "psanet_tf.serving.client.client.label_by_tiles",
        lambda image, label, tile_size: sizes.append(tile_size) or label_by_tiles(image, label, tile_size, 16),
    )
    np.testing.assert_array_equal(client.labels(image), image[..., 0])
    assert sizes == [212]


def test_a_segmenter_of_a_model_without_base_size():
    class Labeler:
        info, protocol, base_size = numbered_classes(5), "mmseg", None

        def labels(self, image):
            return image[..., 0]

    segmenter = Segmenter.of_labeler(Labeler())
    assert (segmenter.protocol, segmenter.base_size) == ("mmseg", None)
    assert segmenter.labels(made_image((9, 9))).shape == (9, 9)
