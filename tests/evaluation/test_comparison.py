"""Evaluations side by side."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from psanet_tf.evaluation.comparison import compare_evaluations
from psanet_tf.evaluation.run import run_evaluation


@pytest.fixture(scope="module")
def runs(evaluated_runs, tmp_path_factory):
    root = tmp_path_factory.mktemp("compared")
    for name in ("fcn", "psanet"):
        run_evaluation(evaluated_runs / name, root / name / "evaluation", worst=0)
    return root


def test_page_and_sheet(runs, tmp_path):
    summaries = compare_evaluations([runs / "fcn", runs / "psanet" / "evaluation"], tmp_path, images=2)
    assert list(summaries) == ["fcn", "psanet"]
    assert summaries["fcn"] == json.loads((runs / "fcn" / "evaluation" / "scores.json").read_text())
    page = (tmp_path / "comparison.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)|url\((?!data:)|@import|fetch\(""", page)
    for summary in summaries.values():
        assert f"{100 * summary['miou']:.2f}" in page
    assert page.count("<img") == 2 * 4
    assert Image.open(tmp_path / "comparison.png").width == 4 * 308 + 8


def test_images_that_differ_most_come_first(runs, tmp_path):
    compare_evaluations([runs / "fcn", runs / "psanet"], tmp_path, images=6, names=["A", "B"])
    page = (tmp_path / "comparison.html").read_text()
    found = re.findall(r"classes present: A ([\d.]+), B ([\d.]+)", page)
    differences = [abs(float(first) - float(second)) for first, second in found]
    assert len(differences) == 6
    assert all(np.diff(differences) <= 0.11)


def test_errors(runs, evaluated_runs, tmp_path):
    with pytest.raises(ValueError, match="at least two"):
        compare_evaluations([runs / "fcn"], tmp_path / "out")
    with pytest.raises(ValueError, match="images must be at least 1"):
        compare_evaluations([runs / "fcn", runs / "psanet"], tmp_path / "out", images=0)
    with pytest.raises(ValueError, match="as many names"):
        compare_evaluations([runs / "fcn", runs / "psanet"], tmp_path / "out", names=["one"])
    with pytest.raises(FileNotFoundError, match="holds an evaluation"):
        compare_evaluations([runs / "fcn", evaluated_runs / "data"], tmp_path / "out")
    shutil.copytree(runs / "psanet", tmp_path / "unfinished")
    (tmp_path / "unfinished" / "evaluation" / "scores.json").unlink()
    with pytest.raises(FileNotFoundError, match="is not finished"):
        compare_evaluations([runs / "fcn", tmp_path / "unfinished"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def other(runs, tmp_path):
    """A copy of an evaluation that may be changed."""
    shutil.copytree(runs / "psanet", tmp_path / "other")
    return tmp_path / "other" / "evaluation"


def _change_fingerprint(folder, **changes):
    path = folder / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_scores_of_different_images_are_not_put_side_by_side(evaluated_runs, runs, other, tmp_path):
    run_evaluation(evaluated_runs / "fcn", tmp_path / "few", limit=3, worst=0)
    with pytest.raises(ValueError, match=r"3 of the 6 images in .* are not in the other \(first: image_1\)"):
        compare_evaluations([runs / "psanet", tmp_path / "few"], tmp_path / "out")
    images = json.loads((other / "fingerprint.json").read_text())["images"]
    images["image_2"][1][2] = "0" * 32
    _change_fingerprint(other, images=images)
    with pytest.raises(ValueError, match=r"1 of 6 labels differ \(first: annotations/validation/image_2.png\)"):
        compare_evaluations([runs / "fcn", other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_classes_and_readings_of_labels_are_refused(runs, other, tmp_path):
    names = json.loads((other / "fingerprint.json").read_text())["class_names"]
    _change_fingerprint(other, class_names=["heaven", *names[1:]])
    with pytest.raises(ValueError, match="different classes, .* class 0 was 'sky', is 'heaven'"):
        compare_evaluations([runs / "fcn", other], tmp_path / "out")
    _change_fingerprint(other, class_names=names, label_rule="0..6 as class 0..6")
    with pytest.raises(ValueError, match=r"read so: .*; and so: 0\.\.6 as class"):
        compare_evaluations([runs / "fcn", other], tmp_path / "out")
    (other / "fingerprint.json").unlink()
    with pytest.raises(FileNotFoundError, match="does not say of which data"):
        compare_evaluations([runs / "fcn", other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_that_changed_since_are_not_shown_beside_old_scores(evaluated_runs, runs, other, tmp_path):
    data = shutil.copytree(evaluated_runs / "data", tmp_path / "data")
    settings = json.loads((other / "settings.json").read_text())
    settings["data"]["root"] = str(data)
    (other / "settings.json").write_text(json.dumps(settings))
    label = data / "annotations" / "validation" / "image_4.png"
    Image.fromarray(np.asarray(Image.open(label))[::-1]).save(label)
    with pytest.raises(ValueError, match=r"changed since .* was scored: 1 of 6 labels .*image_4.png\); run psanet"):
        compare_evaluations([other, runs / "fcn"], tmp_path / "out")
    label.unlink()
    (data / "images" / "validation" / "image_4.png").unlink()
    with pytest.raises(ValueError, match="1 images are gone"):
        compare_evaluations([other, runs / "fcn"], tmp_path / "out")
