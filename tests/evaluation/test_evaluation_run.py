"""A whole evaluation: scores, files, resuming, images that cannot be read."""

import copy
import csv
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from psanet_tf.config import EvaluateSection, load_config
from psanet_tf.data.catalog import dataset_info
from psanet_tf.data.fingerprint import file_digest
from psanet_tf.evaluation import run as run_module
from psanet_tf.evaluation.report import describe
from psanet_tf.evaluation.results import EvaluationFolder
from psanet_tf.evaluation.run import run_evaluation, spread
from psanet_tf.evaluation.submission import submission_values
from psanet_tf.inference import segmenter
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.metrics import segmentation_scores
from psanet_tf.weights import checkpoints
from psanet_tf.weights.checkpoints import checkpoint_file

CLASSES = dataset_info("scenes").num_classes


def _truth(root, name):
    values = np.asarray(Image.open(root / "data" / "annotations" / "validation" / f"{name}.png")).astype(int)
    return np.where(values == 0, 255, values - 1)


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Networks are loaded and traced once for all tests; those of equal weights are one, whatever their path."""
    networks = {}

    original = Segmenter.load

    def load(weights, config=None, overrides=(), whole=False):
        path = checkpoint_file(weights)
        key = file_digest(path), config and config.evaluate.model_dump_json(), whole, segmenter._devices()[-1]
        if key not in networks:
            networks[key] = original(weights, config, overrides, whole)
        loaded = copy.copy(networks[key])
        # What the weights and the configuration say of the classes, though, is read each time.
        loaded.model.description = None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints, "_load_model", lambda path: loaded.model)
            trained = checkpoints.load_trained(weights, config, overrides)
        loaded.info, loaded.path = trained.info, trained.path
        return loaded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segmenter, "load", load)
        yield load


@pytest.fixture
def labelled(loaded_once, monkeypatch):
    """Grows by one item per image that a network labels."""
    seen = []

    def counting(*arguments):
        network = loaded_once(*arguments)
        network.labelers = [Counting(labeler, seen) for labeler in network.labelers]
        return network

    monkeypatch.setattr(Segmenter, "load", counting)
    return seen


@pytest.fixture(scope="module")
def evaluated(evaluated_runs, loaded_once, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "evaluation"
    return run_evaluation(evaluated_runs / "psanet", out, worst=3, submission=True)


@pytest.fixture
def own_data(evaluated_runs, tmp_path):
    """A copy of the data that may be changed, and the override that names it."""
    shutil.copytree(evaluated_runs / "data", tmp_path / "data")
    return tmp_path / "data", [f"data.root={tmp_path / 'data'}"]


@dataclasses.dataclass
class Counting:
    labeler: object
    seen: list

    def labels(self, image):
        return self.labels_and_confidence(image)[0]

    def labels_and_confidence(self, image):
        self.seen.append(1)
        return self.labeler.labels_and_confidence(image)

    def __call__(self, image):
        return self.labeler(image)


def test_scores_are_those_of_the_label_files(evaluated_runs, evaluated):
    folder, summary = evaluated
    names = [f"image_{index}" for index in range(6)]
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
    assert len(list(csv.DictReader((folder.path / "images.csv").open()))) == 6


def test_colour_and_submission_files_hold_the_same_labels(evaluated):
    folder, _ = evaluated
    info = dataset_info("scenes")
    labels = np.asarray(Image.open(folder.label_file("image_0")))
    colored = Image.open(folder.color_file("image_0"))
    assert colored.mode == "P"
    np.testing.assert_array_equal(np.asarray(colored), labels)
    np.testing.assert_array_equal(np.asarray(colored.convert("RGB")), info.colors[labels])
    np.testing.assert_array_equal(np.asarray(Image.open(folder.submission_file("image_0"))), labels + 1)


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


def test_an_exported_model_is_scored_by_its_own_protocol(evaluated_runs, evaluated, tmp_path, monkeypatch):
    network, calls = Segmenter.load(evaluated_runs / "psanet", load_config(evaluated_runs / "psanet/config.yaml")), []

    class Exported:
        info, base_size, protocol = network.info, network.base_size, "semseg"
        labels = staticmethod(network.labels)

    def load(*arguments):
        calls.append(arguments)
        exported = Segmenter.of_labeler(Exported())
        exported.path = tmp_path / "exported"
        return exported

    monkeypatch.setattr(Segmenter, "load", load)
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "saved_model.pb").write_bytes(b"graph")
    config = evaluated_runs / "psanet" / "config.yaml"
    overrides = [f"data.root={evaluated_runs / 'data'}"]
    folder, summary = run_evaluation(tmp_path / "exported", tmp_path / "out", config, overrides)
    assert calls == [(tmp_path / "exported", None, [], False)]
    assert summary["miou"] == evaluated[1]["miou"]
    page = (folder.path / "report.html").read_text()
    assert "by the protocol that it was exported with" in page
    assert 'class="attention"' not in page
    # Another export is another model.
    (tmp_path / "exported" / "saved_model.pb").write_bytes(b"another graph")
    identity = folder.settings["weights"]["identity"]
    run_evaluation(tmp_path / "exported", tmp_path / "out", config)
    assert EvaluationFolder(folder.path).settings["weights"]["identity"] != identity


def test_finished_images_are_not_done_again(evaluated_runs, tmp_path, labelled):
    whole = run_evaluation(evaluated_runs / "psanet", tmp_path / "whole")[1]
    folder, part = run_evaluation(evaluated_runs / "psanet", tmp_path / "parts", limit=2)
    assert part["images"] == 2
    # As an interruption while the last line was written would leave it.
    with (folder.path / "images.jsonl").open("a") as stream:
        stream.write('\n{"name": "image_5", "si')
    labelled.clear()
    assert run_evaluation(evaluated_runs / "psanet", tmp_path / "parts")[1] == whole
    assert len(labelled) == 4
    assert run_evaluation(evaluated_runs / "psanet", tmp_path / "parts")[1] == whole
    assert len(labelled) == 4


def test_other_settings_are_not_mixed(evaluated_runs, evaluated):
    folder, _ = evaluated
    with pytest.raises(ValueError, match="evaluate: .*; choose another folder"):
        run_evaluation(evaluated_runs / "psanet", folder.path, overrides=["evaluate.flip=false"])
    with pytest.raises(ValueError, match="weights: "):
        run_evaluation(evaluated_runs / "fcn", folder.path)


def test_images_that_cannot_be_read_are_reported_and_the_others_done(evaluated_runs, labelled, tmp_path):
    shutil.copytree(evaluated_runs / "data", tmp_path / "data")
    broken = tmp_path / "data" / "images" / "validation" / "image_3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    overrides = [f"data.root={tmp_path / 'data'}"]
    _, summary = run_evaluation(evaluated_runs / "psanet", tmp_path / "out", overrides=overrides)
    assert summary["images"] == 5
    assert list(summary["failed"]) == ["image_3"]
    assert str(broken) in summary["failed"]["image_3"]
    for file in (tmp_path / "data" / "images" / "validation").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="not one image could be read"):
        run_evaluation(evaluated_runs / "psanet", tmp_path / "none", overrides=overrides)


def test_two_devices_give_the_scores_of_one(evaluated_runs, evaluated, tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "_devices", lambda: ["CPU:0", "CPU:1"])
    _, summary = run_evaluation(evaluated_runs / "psanet", tmp_path / "out")
    assert summary == evaluated[1]


def test_labelers_compute_on_their_own_device(evaluated_runs, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(segmenter, "_devices", lambda: ["CPU:0", "CPU:1"])
    network = Segmenter.load(evaluated_runs / "fcn")
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
    with pytest.raises(
        ValueError, match=f"other classes than .*'ade20k' has now: there were {CLASSES} classes, are 150"
    ):
        run_evaluation(evaluated_runs / "psanet", tmp_path / "o", config_path=tmp_path / "other.yaml")
    assert not (tmp_path / "o").exists()


def test_changed_labels_and_images_are_scored_again(evaluated_runs, own_data, labelled, tmp_path, capsys):
    data, overrides = own_data
    out = tmp_path / "out"
    _, first = run_evaluation(evaluated_runs / "fcn", out, overrides=overrides, worst=0)
    for index in (1, 4):
        path = data / "annotations" / "validation" / f"image_{index}.png"
        Image.fromarray(CLASSES - np.asarray(Image.open(path))).save(path)
    path = data / "images" / "validation" / "image_2.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    labelled.clear()
    capsys.readouterr()
    _, second = run_evaluation(evaluated_runs / "fcn", out, overrides=overrides, worst=0)
    said = capsys.readouterr().err
    assert "1 of 6 images of split 'validation' changed (first: images/validation/image_2.png): done again" in said
    assert "2 of 6 labels of split 'validation' changed (first: annotations/validation/image_1.png)" in said
    assert len(labelled) == 3
    assert second["miou"] != first["miou"]
    assert second == run_evaluation(evaluated_runs / "fcn", tmp_path / "fresh", overrides=overrides, worst=0)[1]


def test_data_elsewhere_and_equal_are_not_done_again(evaluated_runs, own_data, labelled, tmp_path):
    run_evaluation(evaluated_runs / "fcn", tmp_path / "out", worst=0)
    labelled.clear()
    folder, _ = run_evaluation(evaluated_runs / "fcn", tmp_path / "out", overrides=own_data[1], worst=0)
    assert labelled == []
    assert str(folder.examples()["image_0"].image_path).startswith(str(own_data[0]))


def test_more_training_makes_an_evaluation_begin_again(evaluated_runs, tmp_path, labelled, capsys):
    run = shutil.copytree(evaluated_runs / "fcn", tmp_path / "run")
    run_evaluation(run, None, limit=2, worst=0)
    shutil.copy(evaluated_runs / "psanet" / "best.keras", run / "best.keras")
    labelled.clear()
    _, summary = run_evaluation(run, None, limit=2, worst=0)
    assert len(labelled) == 2
    assert f"is done again from the beginning: the weights changed ({run / 'best.keras'})" in capsys.readouterr().err
    assert summary == run_evaluation(evaluated_runs / "psanet", tmp_path / "other", limit=2, worst=0)[1]
    # Written again, but with the same contents.
    (run / "best.keras").write_bytes((run / "best.keras").read_bytes())
    run_evaluation(run, None, limit=2, worst=0)
    assert len(labelled) == 4


def test_scores_of_changed_data_are_gone_until_they_are_made_again(
    evaluated_runs, own_data, labelled, tmp_path, monkeypatch
):
    data, overrides = own_data
    folder, _ = run_evaluation(evaluated_runs / "fcn", tmp_path / "out", overrides=overrides, worst=0)
    path = data / "annotations" / "validation" / "image_5.png"
    Image.fromarray(CLASSES - np.asarray(Image.open(path))).save(path)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_evaluation(evaluated_runs / "fcn", tmp_path / "out", overrides=overrides, worst=0)
    assert set(folder.records()) == {f"image_{index}" for index in range(5)}
    with pytest.raises(FileNotFoundError, match="is not finished"):
        _ = folder.scores


def test_classes_that_are_not_the_networks_are_refused(evaluated_runs, own_data, tmp_path):
    data, _ = own_data
    names = list(dataset_info("scenes").class_names)
    for folder, target in (("images", "images/val"), ("annotations", "labels/val")):
        shutil.copytree(data / folder / "validation", data / "custom" / target)
    for path in (data / "custom/labels/val").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) - np.uint8(1)).save(path)
    config = tmp_path / "custom.yaml"
    config.write_text(
        f"data: {{dataset: custom, root: {data / 'custom'}, class_names: names.txt, crop_size: [41, 41]}}\n"
        "model: {blocks: [1, 1, 1, 1], width: 8, use_psa: false}\n"
        "evaluate: {base_size: 56}\n"
    )
    (data / "custom/names.txt").write_text("\n".join(names))
    _, summary = run_evaluation(evaluated_runs / "fcn", tmp_path / "out", config_path=config, limit=2, worst=0)
    (data / "custom/names.txt").write_text("\n".join([names[1], names[0], *names[2:]]))
    with pytest.raises(ValueError, match=f"another order; class 0 was '{names[0]}', is '{names[1]}'"):
        run_evaluation(evaluated_runs / "fcn", tmp_path / "out", config_path=config, limit=2, worst=0)
    # A lone file does not say what its classes were: what was scored under other names is done again.
    lone = tmp_path / "a" / "b" / "c.keras"
    lone.parent.mkdir(parents=True)
    shutil.copy(evaluated_runs / "fcn" / "best.keras", lone)
    _, renamed = run_evaluation(lone, tmp_path / "out", config_path=config, limit=2, worst=0)
    assert [row["name"] for row in renamed["classes"]][:2] == [names[1], names[0]]
    assert renamed["miou"] == summary["miou"]


def test_a_split_without_labels_is_refused(evaluated_runs, own_data, labelled, tmp_path):
    data, overrides = own_data
    paths = sorted((data / "annotations" / "validation").iterdir())
    for path in paths[:-1]:
        Image.fromarray(np.zeros((40, 56), np.uint8)).save(path)
    assert run_evaluation(evaluated_runs / "fcn", tmp_path / "one", overrides=overrides, worst=0)[1]["miou"] > 0
    Image.fromarray(np.zeros((40, 56), np.uint8)).save(paths[-1])
    with pytest.raises(ValueError, match="split 'validation' has no labels to score against: not one pixel in its 6"):
        run_evaluation(evaluated_runs / "fcn", tmp_path / "out", overrides=overrides)
    for path in paths:
        path.unlink()
    with pytest.raises(FileNotFoundError, match="split 'validation' has images but no labels"):
        run_evaluation(evaluated_runs / "fcn", tmp_path / "out", overrides=overrides)
    assert not (tmp_path / "out").exists()


def test_files_for_the_test_server_can_be_asked_for_later(evaluated_runs, tmp_path, labelled):
    run_evaluation(evaluated_runs / "fcn", tmp_path, limit=2, worst=0)
    folder, _ = run_evaluation(evaluated_runs / "fcn", tmp_path, limit=2, worst=0, submission=True)
    assert len(labelled) == 2
    for name in ("image_0", "image_3"):
        submitted = np.asarray(Image.open(folder.submission_file(name)))
        np.testing.assert_array_equal(submitted, folder.read_prediction(name) + 1)


def test_evaluations_of_earlier_versions_and_damaged_ones(evaluated_runs, tmp_path, labelled, capsys):
    folder, summary = run_evaluation(evaluated_runs / "fcn", tmp_path, limit=2, worst=0)
    settings = folder.settings
    old = {key: value for key, value in settings.items() if key not in ("format", "label_rule")}
    (tmp_path / "settings.json").write_text(json.dumps(old | {"weights": ["/a/best.keras", 1, 2]}))
    assert run_evaluation(evaluated_runs / "fcn", tmp_path, limit=2, worst=0)[1] == summary
    assert len(labelled) == 4
    assert "made by an earlier version" in capsys.readouterr().err
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json is damaged"):
        run_evaluation(evaluated_runs / "fcn", tmp_path, limit=2, worst=0)


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


def test_a_report_names_the_protocol():
    def said(whole=False, **evaluate):
        section = EvaluateSection(**evaluate).model_dump(mode="json")
        return describe({"weights": {"file": "a.keras"}, "evaluate": section, "whole": whole})

    mmseg = {"protocol": "mmseg", "scale": (2048, 512)}
    assert said(**mmseg, scales=(0.5, 1), flip=True) == (
        "a.keras: MMSegmentation's protocol, mode whole, at scale 0.5, 1 of 2048 x 512, with mirror images"
    )
    assert said(base_size=512, flip=False) == "a.keras: sliding window at scale 1 of long side 512"
    assert said(**mmseg, whole=True) == "a.keras: one pass per image"
