"""A whole evaluation: scores, files, resuming, pictures that cannot be read."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.evaluation import run as run_module
from psanet_tf.evaluation.labelers import load_labelers
from psanet_tf.evaluation.results import EvaluationFolder
from psanet_tf.evaluation.run import run_evaluation, spread
from psanet_tf.evaluation.submission import submission_values
from psanet_tf.metrics import segmentation_scores

CLASSES = dataset_info("scenes").num_classes


def _truth(root, name):
    values = np.asarray(Image.open(root / "data" / "annotations" / "validation" / f"{name}.png")).astype(int)
    return np.where(values == 0, 255, values - 1)


@pytest.fixture(scope="module")
def evaluated(evaluated_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "evaluation"
    return run_evaluation(evaluated_runs / "psanet", out, worst=3, submission=True)


def test_scores_are_those_of_the_label_files(evaluated_runs, evaluated):
    folder, summary = evaluated
    names = [f"picture_{index}" for index in range(6)]
    predictions = np.stack([np.asarray(Image.open(folder.label_file(name))) for name in names])
    expected = segmentation_scores(predictions, np.stack([_truth(evaluated_runs, name) for name in names]), CLASSES)
    assert len(np.unique(predictions)) > 1
    for key in ("miou", "macc", "allacc"):
        assert summary[key] == pytest.approx(getattr(expected, key), abs=1e-12)
    np.testing.assert_allclose([row["iou"] for row in summary["classes"]], expected.iou, atol=1e-12)
    assert json.loads((folder.path / "scores.json").read_text()) == summary


def test_tables_hold_the_summary(evaluated):
    folder, summary = evaluated
    rows = list(csv.DictReader((folder.path / "classes.csv").open()))
    assert [row["class"] for row in rows] == list(dataset_info("scenes").class_names)
    np.testing.assert_allclose([float(row["iou"]) for row in rows], [row["iou"] for row in summary["classes"]])
    confusion = list(csv.reader((folder.path / "confusion.csv").open()))[1:]
    counts = np.array([[int(value) for value in row[1:]] for row in confusion])
    assert counts.sum(axis=1).tolist() == [row["pixels"] for row in summary["classes"]]
    assert len(list(csv.DictReader((folder.path / "pictures.csv").open()))) == 6


def test_colour_and_submission_files_hold_the_same_labels(evaluated):
    folder, _ = evaluated
    info = dataset_info("scenes")
    labels = np.asarray(Image.open(folder.label_file("picture_0")))
    colored = Image.open(folder.color_file("picture_0"))
    assert colored.mode == "P"
    np.testing.assert_array_equal(np.asarray(colored), labels)
    np.testing.assert_array_equal(np.asarray(colored.convert("RGB")), info.colors[labels])
    np.testing.assert_array_equal(np.asarray(Image.open(folder.submission_file("picture_0"))), labels + 1)


def test_report_needs_no_network_and_shows_attention(evaluated):
    folder, summary = evaluated
    page = (folder.path / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)|url\((?!data:)|@import|fetch\(""", page)
    assert f"{100 * summary['miou']:.2f}" in page
    assert page.count('class="attention"') == 3
    assert '"collect": "data:image/png' in page
    assert '"distribute": "data:image/png' in page
    sheet = Image.open(folder.path / "worst.png")
    assert sheet.height > 3 * 40
    assert Image.open(folder.path / "confusion.png").width > 100


def test_a_network_without_attention_gets_a_report_without(evaluated_runs, tmp_path):
    folder, _ = run_evaluation(evaluated_runs / "fcn", tmp_path / "out", limit=2, worst=0)
    assert 'class="attention"' not in (folder.path / "report.html").read_text()
    assert not (folder.path / "worst.png").exists()


def test_finished_pictures_are_not_done_again(evaluated_runs, tmp_path, monkeypatch):
    whole = run_evaluation(evaluated_runs / "psanet", tmp_path / "whole")[1]
    folder, part = run_evaluation(evaluated_runs / "psanet", tmp_path / "parts", limit=2)
    assert part["pictures"] == 2
    # As an interruption while the last line was written would leave it.
    with (folder.path / "pictures.jsonl").open("a") as stream:
        stream.write('\n{"name": "picture_5", "si')
    seen = []

    def counting(*arguments):
        network = load_labelers(*arguments)
        for labeler in network.labelers:
            labels = labeler.labeler.labels
            labeler.labeler.labels = lambda image, labels=labels: seen.append(1) or labels(image)
        return network

    monkeypatch.setattr(run_module, "load_labelers", counting)
    assert run_evaluation(evaluated_runs / "psanet", tmp_path / "parts")[1] == whole
    assert len(seen) == 4
    assert run_evaluation(evaluated_runs / "psanet", tmp_path / "parts")[1] == whole
    assert len(seen) == 4


def test_other_settings_are_not_mixed(evaluated_runs, evaluated):
    folder, _ = evaluated
    with pytest.raises(ValueError, match="evaluate: .*; choose another folder"):
        run_evaluation(evaluated_runs / "psanet", folder.path, overrides=["evaluate.flip=false"])
    with pytest.raises(ValueError, match="weights: "):
        run_evaluation(evaluated_runs / "fcn", folder.path)


def test_pictures_that_cannot_be_read_are_reported_and_the_others_done(evaluated_runs, tmp_path):
    shutil.copytree(evaluated_runs / "data", tmp_path / "data")
    broken = tmp_path / "data" / "images" / "validation" / "picture_3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    overrides = [f"data.root={tmp_path / 'data'}"]
    _, summary = run_evaluation(evaluated_runs / "psanet", tmp_path / "out", overrides=overrides)
    assert summary["pictures"] == 5
    assert list(summary["failed"]) == ["picture_3"]
    assert str(broken) in summary["failed"]["picture_3"]
    for file in (tmp_path / "data" / "images" / "validation").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="not one picture could be read"):
        run_evaluation(evaluated_runs / "psanet", tmp_path / "none", overrides=overrides)


def test_two_devices_give_the_scores_of_one(evaluated_runs, evaluated, tmp_path, monkeypatch):
    def on_two(weights, config_path, section, whole):
        return load_labelers(weights, config_path, section, whole, devices=["CPU:0", "CPU:1"])

    monkeypatch.setattr(run_module, "load_labelers", on_two)
    _, summary = run_evaluation(evaluated_runs / "psanet", tmp_path / "out")
    assert summary == evaluated[1]


def test_labelers_compute_on_their_own_device(evaluated_runs):
    import tensorflow as tf

    network = load_labelers(evaluated_runs / "fcn", section=EvaluateSection(), devices=["CPU:0", "CPU:1"])
    seen = []
    for labeler in network.labelers:
        predict = labeler.labeler.predict
        labeler.labeler.predict = lambda crops, predict=predict: seen.append(crops.device) or predict(crops)
        labeler.labels(np.zeros((9, 9, 3), "uint8"))
    assert {tf.DeviceSpec.from_string(name).device_index for name in seen} == {0, 1}


def test_bad_arguments(evaluated_runs, tmp_path):
    with pytest.raises(ValueError, match="limit must be at least 1"):
        run_evaluation(evaluated_runs / "psanet", tmp_path / "o", limit=0)
    with pytest.raises(ValueError, match="worst must not be negative"):
        run_evaluation(evaluated_runs / "psanet", tmp_path / "o", worst=-1)
    lone = tmp_path / "a" / "b" / "c.keras"
    lone.parent.mkdir(parents=True)
    shutil.copy(evaluated_runs / "psanet" / "best.keras", lone)
    with pytest.raises(ValueError, match="lies in no run folder"):
        run_evaluation(lone, tmp_path / "o")
    with pytest.raises(FileNotFoundError):
        run_evaluation(evaluated_runs / "psanet", tmp_path / "o", split="nowhere")
    assert not (tmp_path / "o").exists()


def test_networks_of_other_classes_are_refused(evaluated_runs, tmp_path):
    (tmp_path / "other.yaml").write_text(f"data: {{dataset: ade20k, root: {evaluated_runs / 'data'}}}\n")
    with pytest.raises(ValueError, match=f"has {CLASSES} classes, but the dataset 'ade20k' has 150"):
        run_evaluation(evaluated_runs / "psanet", tmp_path / "o", config_path=tmp_path / "other.yaml")
    assert not (tmp_path / "o").exists()


def test_a_folder_without_an_evaluation(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no evaluation"):
        _ = EvaluationFolder(tmp_path).settings


def test_spread_covers_the_split():
    assert spread(list(range(10)), 3) == [0, 3, 6]
    assert spread([1, 2], None) == spread([1, 2], 5) == [1, 2]


@pytest.mark.parametrize(
    ("dataset", "first", "last"),
    [("ade20k", 1, 150), ("cityscapes", 7, 33), ("voc2012", 0, 20), ("scenes", 1, CLASSES)],
)
def test_submission_values_are_those_of_the_label_files(dataset, first, last):
    values = submission_values(dataset_info(dataset))
    assert (values[0], values[-1]) == (first, last)
    assert len(np.unique(values)) == len(values)


def test_records_score_as_files_do(evaluated_runs, evaluated, tmp_path):
    from psanet_tf.config import load_config
    from psanet_tf.data.record_writer import write_records

    data = load_config(evaluated_runs / "psanet" / "config.yaml").data
    write_records(data, "validation", tmp_path / "records", 4, 1)
    overrides = ["data.format=tfrecord", f"data.root={tmp_path / 'records'}"]
    folder, summary = run_evaluation(evaluated_runs / "psanet", tmp_path / "out", overrides=overrides, worst=2)
    assert summary == evaluated[1]
    assert (folder.path / "worst.png").is_file()
