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
    summaries = compare_evaluations([runs / "fcn", runs / "psanet" / "evaluation"], tmp_path, pictures=2)
    assert list(summaries) == ["fcn", "psanet"]
    assert summaries["fcn"] == json.loads((runs / "fcn" / "evaluation" / "scores.json").read_text())
    page = (tmp_path / "comparison.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)|url\((?!data:)|@import|fetch\(""", page)
    for summary in summaries.values():
        assert f"{100 * summary['miou']:.2f}" in page
    assert page.count("<img") == 2 * 4
    assert Image.open(tmp_path / "comparison.png").width == 4 * 308 + 8


def test_pictures_that_differ_most_come_first(runs, tmp_path):
    compare_evaluations([runs / "fcn", runs / "psanet"], tmp_path, pictures=6, names=["A", "B"])
    page = (tmp_path / "comparison.html").read_text()
    found = re.findall(r"classes present: A ([\d.]+), B ([\d.]+)", page)
    differences = [abs(float(first) - float(second)) for first, second in found]
    assert len(differences) == 6
    assert all(np.diff(differences) <= 0.11)


def test_errors(runs, evaluated_runs, tmp_path):
    with pytest.raises(ValueError, match="at least two"):
        compare_evaluations([runs / "fcn"], tmp_path / "out")
    with pytest.raises(ValueError, match="pictures must be at least 1"):
        compare_evaluations([runs / "fcn", runs / "psanet"], tmp_path / "out", pictures=0)
    with pytest.raises(ValueError, match="as many names"):
        compare_evaluations([runs / "fcn", runs / "psanet"], tmp_path / "out", names=["one"])
    with pytest.raises(FileNotFoundError, match="holds an evaluation"):
        compare_evaluations([runs / "fcn", evaluated_runs / "data"], tmp_path / "out")
    shutil.copytree(runs / "psanet", tmp_path / "unfinished")
    (tmp_path / "unfinished" / "evaluation" / "scores.json").unlink()
    with pytest.raises(FileNotFoundError, match="is not finished"):
        compare_evaluations([runs / "fcn", tmp_path / "unfinished"], tmp_path / "out")
    shutil.copytree(runs / "psanet", tmp_path / "other")
    settings = tmp_path / "other" / "evaluation" / "settings.json"
    settings.write_text(settings.read_text().replace('"sky"', '"heaven"'))
    with pytest.raises(ValueError, match="different classes"):
        compare_evaluations([runs / "fcn", tmp_path / "other"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
