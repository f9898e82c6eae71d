"""`Segmenter`: trained weights and exported models label alike, and images may come in any form."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from psanet_tf import PSANet
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.evaluation.run import run_evaluation
from psanet_tf.inference.given_images import as_pixels
from psanet_tf.inference.protocols import build_labeler
from psanet_tf.inference.saved_model import SavedModelLabeler
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.runtimes.model_folder import saved_model_folder
from psanet_tf.visualization.overlay import overlay


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype("uint8")


def test_a_run_folder_uses_its_own_protocol_and_overrides(evaluated_runs, image):
    source = Segmenter.load(evaluated_runs / "psanet")
    (labeler,) = source.labelers
    assert source.info.class_names == dataset_info("scenes").class_names
    assert labeler.labeler.base_size == source.base_size == 56
    other = Segmenter.load(evaluated_runs / "psanet", overrides=["evaluate.base_size=40"])
    assert other.labelers[0].labeler.base_size == other.base_size == 40
    assert labeler.labels(image).shape == (50, 70)


def test_a_lone_file_has_unnamed_classes(evaluated_runs, tmp_path, capsys):
    lone = tmp_path / "a" / "b" / "model.keras"
    lone.parent.mkdir(parents=True)
    shutil.copy(evaluated_runs / "fcn" / "best.keras", lone)
    source = Segmenter.load(lone)
    assert source.info.class_names[3] == "class 3"
    assert source.labelers[0].labeler.base_size == source.base_size == 512
    assert "nothing names the classes of" in (said := capsys.readouterr().err)
    assert "nothing tells at which scale 'psanet' was trained: images are resized to a long side of 512" in said
    # As the warning advises.
    set_so = Segmenter.load(lone, overrides=["evaluate.base_size=60", "evaluate.flip=false"])
    assert (set_so.base_size, set_so.evaluate.flip) == (60, False)
    assert "nothing tells at which scale" not in capsys.readouterr().err
    with pytest.raises(ValueError, match="only keys of evaluate can be set without --config, got 'train.seed=1'"):
        Segmenter.load(lone, overrides=["train.seed=1"])


def test_whole_images(evaluated_runs, image):
    (labeler,) = Segmenter.load(evaluated_runs / "psanet", whole=True).labelers
    assert labeler.labels(image).shape == (50, 70)


def test_an_exported_model_labels_as_the_keras_model(evaluated_runs, image, tmp_path, monkeypatch):
    from psanet_tf.export.saved_model import export_saved_model

    section = EvaluateSection(base_size=60, scales=(1.0, 0.75))
    overrides = ["evaluate.base_size=60", "evaluate.scales=[1.0, 0.75]"]
    network = Segmenter.load(evaluated_runs / "psanet", overrides=overrides)
    info = dataset_info("scenes")
    # Its check compares the two with each other, as is done here.
    monkeypatch.setattr("psanet_tf.export.saved_model.verify_export", lambda *arguments: None)
    export_saved_model(network.model, tmp_path / "m", info, section, warm_up=False)
    exported = Segmenter.load(tmp_path / "m")
    (labeler,) = exported.labelers
    assert isinstance(labeler, SavedModelLabeler)
    assert exported.info.class_names == info.class_names
    assert (exported.protocol, exported.base_size) == ("semseg", 60)
    expected = network.labels(image)
    assert (labeler.labels(image) == expected).mean() > 0.999
    with pytest.raises(ValueError, match="is a SavedModel"):
        Segmenter.load(tmp_path / "m", whole=True)
    points = [(3, 4), (69, 49)]
    maps, expected = exported.attention(image, points), network.attention(image, points)
    assert maps.points == expected.points
    # The export tells it by float32 numbers.
    for found, wanted in zip(dataclasses.astuple(maps.placement), dataclasses.astuple(expected.placement), strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
    np.testing.assert_allclose(maps.collect, expected.collect, atol=1e-6)
    np.testing.assert_allclose(maps.distribute, expected.distribute, atol=1e-6)
    with pytest.raises(ValueError, match="point 70,4 lies outside of the image"):
        exported.attention(image, [(70, 4)])
    with pytest.raises(ValueError, match="gives labels only: for probabilities load the weights"):
        exported.probabilities(image)


def test_other_saved_models_are_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "7"))
    tf.saved_model.save(tf.Module(), str(tmp_path / "12"))
    assert saved_model_folder(tmp_path) == tmp_path / "12"
    with pytest.raises(ValueError, match="lacks the signatures metadata, predict_bytes"):
        Segmenter.load(tmp_path)


def test_a_network_of_any_size_needs_whole(evaluated_runs):
    from psanet_tf.inference.whole_image import any_size

    model = any_size(Segmenter.load(evaluated_runs / "fcn", whole=True).model)
    with pytest.raises(ValueError, match="label images whole"):
        build_labeler(model, EvaluateSection(base_size=60))


def test_no_weights(evaluated_runs, tmp_path):
    (tmp_path / "empty").mkdir()
    for label in (Segmenter.load, lambda weights: run_evaluation(weights, tmp_path / "out")):
        with pytest.raises(
            FileNotFoundError,
            match=r"there is no run folder or checkpoint .*none \(and no such name in",
        ):
            label(tmp_path / "none")
        with pytest.raises(FileNotFoundError, match=r"no run folder or checkpoint .*psante; near .* is .*psanet \(and"):
            label(evaluated_runs / "psante")
        # In a run folder, whose configuration is not the point.
        with pytest.raises(FileNotFoundError, match=r"no run folder or checkpoint .*epoch_00009.keras"):
            label(evaluated_runs / "psanet" / "epoch_00009.keras")
        with pytest.raises(FileNotFoundError, match=r"empty holds neither best.keras nor last.keras: no run folder"):
            label(tmp_path / "empty")
        with pytest.raises(FileNotFoundError, match=r"no run folder of psanet train, but one above .*fcn"):
            label(evaluated_runs)


@pytest.fixture(scope="module")
def segmenter():
    model = PSANet(4, blocks=(1, 1, 1, 1), width=8, input_shape=(33, 33, 3), use_psa=True)
    return Segmenter(model, classes=["sky", "sea", "land", "ice"], evaluate={"base_size": 48, "flip": False})


def test_every_form_of_an_image_is_the_same_image(segmenter, tmp_path):
    rng = np.random.default_rng(0)
    upright = rng.integers(0, 256, (24, 40, 3)).astype("uint8")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be turned clockwise
    lying = Image.fromarray(np.rot90(upright).copy())
    lying.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        forms = [tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), opened, upright]
        for form in forms:
            np.testing.assert_array_equal(as_pixels(form), upright)
    with pytest.raises(TypeError, match=r"image must be a path, the bytes of a file, a PIL image.*got list"):
        segmenter.labels([1, 2])
    with pytest.raises(ValueError, match=r"image must be uint8 \[H, W, 3\]"):
        segmenter.labels(upright[..., 0])
    with pytest.raises(FileNotFoundError, match="none.jpg"):
        segmenter.labels("none.jpg")


def test_pil_images_of_every_mode_are_read_as_their_files(tmp_path):
    rng = np.random.default_rng(1)
    colors = Image.fromarray(rng.integers(0, 256, (5, 6, 3)).astype("uint8"))
    for mode in ("L", "LA", "RGB", "RGBA", "P", "1", "CMYK"):
        image = colors.convert(mode)
        path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
        image.save(path)
        np.testing.assert_array_equal(as_pixels(image), as_pixels(path), err_msg=mode)
    with pytest.raises(ValueError, match="a PIL image of mode F has no sure meaning"):
        as_pixels(Image.new("F", (3, 3)))


def test_labels_confidence_and_overlay_are_made_of_the_probabilities(segmenter, image):
    probabilities = segmenter.probabilities(image)
    assert probabilities.shape == (50, 70, 4)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    labels = segmenter.labels(image)
    np.testing.assert_array_equal(labels, probabilities.argmax(-1))
    np.testing.assert_allclose(segmenter.confidence(image), probabilities.max(-1), atol=1e-6)
    np.testing.assert_array_equal(segmenter.overlay(image, legend=False), overlay(image, labels, segmenter.colors))
    maps = segmenter.attention(image, [(3, 4)])
    np.testing.assert_allclose(maps.collect.sum((1, 2)), 1, atol=1e-5)


def test_classes_and_colors_are_given_or_numbered(segmenter):
    assert segmenter.classes == ("sky", "sea", "land", "ice")
    model = segmenter.model
    colors = np.arange(12).reshape(4, 3)
    other = Segmenter(model, colors=colors, evaluate={"base_size": 48})
    assert other.classes == ("class 0", "class 1", "class 2", "class 3")
    np.testing.assert_array_equal(other.colors, colors)
    with pytest.raises(ValueError, match="classes: the model has 4, got 2 names"):
        Segmenter(model, classes=["a", "b"])
    with pytest.raises(TypeError, match="model must be a psanet_tf.PSANet, got str"):
        Segmenter("net.keras")
    with pytest.raises(ValueError, match="mode belongs to protocol mmseg, the protocol is semseg"):
        Segmenter(model, evaluate={"mode": "whole"})
