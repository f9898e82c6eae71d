"""A network is calibrated: the temperature is stored, and every later probability uses it."""

import copy
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from psanet_tf.config import EvaluateSection, load_config
from psanet_tf.data.catalog import dataset_info
from psanet_tf.data.readers import list_examples, read_example
from psanet_tf.evaluation import calibration as calibration_module
from psanet_tf.evaluation.calibration import calibrate
from psanet_tf.evaluation.run import run_evaluation
from psanet_tf.export.saved_model import export_metadata
from psanet_tf.export.signatures import ServingModule
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.keras_api import keras
from psanet_tf.weights.description import Description, describe
from psanet_tf.weights.files import weights_identity

CLASSES = dataset_info("scenes").num_classes


@pytest.fixture(scope="module")
def run(evaluated_runs, tmp_path_factory):
    """A run folder whose network knows something of its data, and is far too sure of it."""
    run = shutil.copytree(evaluated_runs / "fcn", tmp_path_factory.mktemp("calibrated") / "run")
    model = keras.saving.load_model(run / "best.keras")
    classifier = model.get_layer("head_classifier")
    features = keras.Model(model.inputs[0], classifier.input)
    inputs, targets = [], []
    info = dataset_info("scenes")
    for example in list_examples(load_config(run / "config.yaml").data, "validation"):
        image, label = read_example(example, info)
        crop = np.pad(info.images.normalize(image[:, :41]), ((0, 1), (0, 0), (0, 0)))
        # Features look at every eighth pixel.
        places = label[::8, :41:8]
        counts = places != info.ignore_label
        inputs.append(features(crop[None], training=False)[0].numpy()[: len(places)][counts])
        targets.append(np.eye(CLASSES)[places[counts]])
    inputs, targets = np.concatenate(inputs), np.concatenate(targets)
    gram = inputs.T @ inputs + 1e-3 * np.eye(inputs.shape[1])
    kernel = 40 * np.linalg.solve(gram, inputs.T @ targets)
    classifier.set_weights([kernel[None, None].astype(np.float32), np.zeros(CLASSES, np.float32)])
    # As in files that training writes.
    describe(model, Description(info, EvaluateSection(base_size=56)))
    model.save(run / "best.keras")
    return run


@pytest.fixture(scope="module")
def image(evaluated_runs):
    return np.asarray(Image.open(evaluated_runs / "data" / "images" / "validation" / "image_1.png"))


def _evaluated(run, segmenter):
    """The run's evaluation, with a network that is loaded already: (EvaluationFolder, summary)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segmenter, "load", lambda *arguments: segmenter)
        return run_evaluation(run, None, worst=0)


@pytest.fixture(scope="module")
def before(run, image):
    """(Segmenter, probabilities of the image, summary) of the network before it is calibrated."""
    segmenter = Segmenter.load(run)
    folder, summary = _evaluated(run, segmenter)
    assert "psanet calibrate</code> fits one" in (folder.path / "report.html").read_text()
    return segmenter, segmenter.probabilities(image), summary


@pytest.fixture(scope="module")
def calibrated(run, before):
    """By all pixels there are."""
    return calibrate(run, pixels=10**6)


@pytest.fixture(scope="module")
def after(run, calibrated):
    return Segmenter.load(run)


def test_the_temperature_makes_the_probabilities_believable(calibrated, run, before):
    calibration, file, failures = calibrated
    labelled = sum(row["pixels"] for row in before[2]["classes"])
    assert (file, failures) == (run / "best.keras", {})
    assert (calibration.split, calibration.images, calibration.pixels) == ("validation", 6, labelled)
    assert calibration.temperature > 1.5
    assert calibration.nll[1] < calibration.nll[0]
    errors = [found.expected_calibration_error for found in (calibration.before, calibration.after)]
    assert errors[0] == pytest.approx(before[2]["expected_calibration_error"], abs=1e-5)
    assert errors[1] < errors[0] / 2
    np.testing.assert_allclose(calibration.before.pixels.sum(), calibration.after.pixels.sum())


def test_later_probabilities_are_those_of_the_divided_logits(calibrated, before, after, image):
    temperature = calibrated[0].temperature
    network, probabilities, _ = before
    assert (network.temperature, after.temperature) == (1.0, temperature)
    window = network.labelers[0].labeler
    predict = window.predict
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "predict", lambda crops: predict(crops) / temperature)
        expected = window(image)
    np.testing.assert_allclose(after.probabilities(image), expected, atol=1e-6)
    assert np.abs(expected - probabilities).max() > 0.1


def test_a_second_calibration_starts_from_the_network_again(calibrated, run, tmp_path):
    first = calibrated[0]
    again, _, _ = calibrate(shutil.copytree(run, tmp_path / "run"), pixels=1200, seed=1)
    assert again.pixels == 1200
    assert again.temperature == pytest.approx(first.temperature, rel=0.2)
    assert again.temperature != first.temperature
    assert again.nll == pytest.approx(first.nll, rel=0.1)


def test_an_evaluation_is_done_again_and_shows_before_and_after(calibrated, before, after, run, capsys):
    calibration, old_labels = calibrated[0], {}
    for path in (run / "evaluation" / "labels").iterdir():
        old_labels[path.stem] = np.asarray(Image.open(path))
    folder, summary = _evaluated(run, after)
    assert "done again from the beginning: the temperature was 1.0, is " in capsys.readouterr().err
    error = summary["expected_calibration_error"]
    assert error == pytest.approx(calibration.after.expected_calibration_error, abs=1e-5)
    changed = []
    for name, example in folder.examples().items():
        _, label, prediction = folder.read(example)
        changed.append((prediction != old_labels[name])[label != 255])
    assert np.concatenate(changed).mean() == pytest.approx(calibration.changed, abs=1e-3)
    page = (folder.path / "report.html").read_text()
    assert "calibration: before, temperature 1" in page
    assert page.count('alt="reliability diagram') == 3
    assert Image.open(folder.path / "reliability.png").height > 300
    rows = (folder.path / "reliability.csv").read_text().splitlines()
    assert len(rows) == 16
    assert sum(int(row.split(",")[2]) for row in rows[1:]) == calibration.pixels


def test_exports_divide_in_their_graph(calibrated, after, image, tmp_path):
    temperature = calibrated[0].temperature
    metadata = export_metadata(after.model, after.info, after.evaluate)
    assert metadata.temperature == temperature
    (tmp_path / "metadata.json").write_text(metadata.to_json())
    module = ServingModule(after.model, metadata, tmp_path / "metadata.json")
    crop = np.pad(image, ((0, 1), (0, 0), (0, 0)))[None, :41, :41]
    logits = after.model.inference()(after.images.normalize(crop), training=False)
    expected = tf.nn.softmax(logits / temperature)
    np.testing.assert_allclose(module.probabilities(tf.constant(crop))["probabilities"], expected, atol=1e-5)
    scores = module.label_images(tf.constant(crop))["scores"].numpy().astype(int)
    assert np.abs(scores - np.round(255 * expected.numpy().max(-1))).max() <= 1


def test_what_cannot_be_calibrated_is_refused(run, calibrated, evaluated_runs, tmp_path):
    identity = weights_identity(run / "best.keras")
    for arguments, message in (
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"pixels": 0}, "pixels must be at least 1, got 0"),
        ({"split": "nowhere"}, "nowhere"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            calibrate(run, **arguments)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"")
    (tmp_path / "net.onnx").write_bytes(b"")
    for exported in (tmp_path, tmp_path / "net.onnx"):
        with pytest.raises(ValueError, match="is exported, with the temperature that its weights had"):
            calibrate(exported)
    lone = tmp_path / "a" / "b" / "c.keras"
    lone.parent.mkdir(parents=True)
    shutil.copy(run / "best.keras", lone)
    with pytest.raises(ValueError, match="lies in no run folder: give the configuration"):
        calibrate(lone)
    (tmp_path / "other.yaml").write_text(f"data: {{dataset: ade20k, root: {evaluated_runs / 'data'}}}\n")
    with pytest.raises(ValueError, match="other classes than"):
        calibrate(run, tmp_path / "other.yaml")
    assert weights_identity(run / "best.keras") == identity


def test_images_that_cannot_be_read_are_told(run, after, tmp_path, monkeypatch):
    unreadable = {"image_2", "image_4"}

    def read(example, info):
        if example.name in unreadable:
            raise ValueError(f"{example.name} is cut short")
        return read_example(example, info)

    network = copy.copy(after)
    network.path = tmp_path / "net.keras"
    shutil.copy(run / "best.keras", network.path)
    monkeypatch.setattr(Segmenter, "load", lambda *arguments: network)
    monkeypatch.setattr(calibration_module, "read_example", read)
    calibration, file, failures = calibrate(run, pixels=300)
    assert (file, calibration.images, calibration.pixels) == (network.path, 4, 200)
    assert failures == {name: f"{name} is cut short" for name in unreadable}
    unreadable |= {f"image_{index}" for index in range(6)}
    with pytest.raises(ValueError, match="not one image could be read:\n  image_0 is cut short"):
        calibrate(run)
