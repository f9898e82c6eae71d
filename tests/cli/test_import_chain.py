"""The whole way of labels from an annotation tool: import, check, training, evaluation, as a user calls them."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf.data.catalog import dataset_info, distinct_colors
from psanet_tf.data.readers import read_image, read_label
from psanet_tf.data.scene_files import write_scenes


def run(*arguments):
    _register()
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture
def export(tmp_path):
    """CVAT's "Segmentation mask 1.1" of 40 scenes, its masks as RGB."""
    scenes = write_scenes(tmp_path / "scenes", train=40, validation=1)
    info, colors = dataset_info("scenes"), distinct_colors(10)[::-1]
    root = tmp_path / "export"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = []
    for path in sorted((scenes / "images/training").iterdir()):
        label = read_label(scenes / f"annotations/training/{path.stem}.png", info)
        (root / "JPEGImages" / path.name).write_bytes(path.read_bytes())
        Image.fromarray(colors[label]).save(root / f"SegmentationClass/{path.stem}.png")
        names.append(path.stem)
    lines = [
        "{}:{},{},{}::".format(name, *color) for name, color in zip(info.class_names, colors.tolist(), strict=True)
    ]
    (root / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]))
    (root / "ImageSets/Segmentation/default.txt").write_text("\n".join(names))
    return scenes, root


@pytest.mark.extended
def test_from_an_export_to_scores(export, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes, root = export
    out = tmp_path / "dataset"
    output = run("data", "import", root, "--out", out, "--val", 0.25)
    assert "30 train images, 10 val images (drawn, seed 0)" in output
    info = dataset_info("scenes")
    assert (out / "classes.txt").read_text().split("\n")[:-1] == list(info.class_names)
    for path in sorted(out.glob("labels/*/*.png")):
        truth = read_label(scenes / f"annotations/training/{path.name}", info)
        assert np.array_equal(np.asarray(Image.open(path)), truth)
        assert np.array_equal(
            read_image(out / "images" / path.parent.name / f"{path.stem}.jpg"),
            read_image(scenes / f"images/training/{path.stem}.jpg"),
        )
    assert f"nothing is wrong in {out}" in run("data", "check", "--config", out / "dataset.yaml")
    small = ("--set", "train.tensorboard=false", "--set", "model.width=8", "--set", "data.crop_size=[97,97]")
    run("train", "--config", out / "dataset.yaml", "--run-dir", "run", "--epochs", 1, *small)
    run("evaluate", "--weights", "run", "--limit", 4)
    scores = json.loads((tmp_path / "run/evaluation/scores.json").read_text())
    assert 0 < scores["allacc"] <= 1
    assert len(list((tmp_path / "run/evaluation/labels").iterdir())) == 4
