"""`Segmenter`: trained weights and exported models label alike, and images may come in any form."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.evaluation.run import run_evaluation
from psanet_tf.inference.protocols import build_labeler
from psanet_tf.inference.saved_model import SavedModelLabeler, saved_model_folder
from psanet_tf.inference.segmenter import Segmenter


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
    with pytest.raises(ValueError, match="overrides need a configuration"):
        Segmenter.load(lone, overrides=["evaluate.flip=false"])


def test_whole_images(evaluated_runs, image):
    (labeler,) = Segmenter.load(evaluated_runs / "psanet", whole=True).labelers
    assert labeler.labels(image).shape == (50, 70)


def test_an_exported_model_labels_as_the_keras_model(evaluated_runs, image, tmp_path, monkeypatch):
    from psanet_tf.serving.export import export_saved_model

    section = EvaluateSection(base_size=60, scales=(1.0, 0.75))
    overrides = ["evaluate.base_size=60", "evaluate.scales=[1.0, 0.75]"]
    network = Segmenter.load(evaluated_runs / "psanet", overrides=overrides)
    info = dataset_info("scenes")
    # Its check compares the two with each other, as is done here.
    monkeypatch.setattr("psanet_tf.serving.export.verify_export", lambda *arguments: None)
    export_saved_model(network.model, tmp_path / "m", info, section, warm_up=False)
    exported = Segmenter.load(tmp_path / "m")
    (labeler,) = exported.labelers
    assert isinstance(labeler, SavedModelLabeler)
    assert exported.info.class_names == info.class_names
    assert exported.base_size == 60
    expected = network.labels(image)
    assert (labeler.labels(image) == expected).mean() > 0.999
    with pytest.raises(ValueError, match="is a SavedModel"):
        Segmenter.load(tmp_path / "m", whole=True)


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
