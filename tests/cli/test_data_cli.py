"""`psanet data`, as a user calls it."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from psanet_cli.app import _register, app

CONFIG = "data:\n  dataset: scenes\n  root: {root}\n  crop_size: [97, 97]\n"


def run(*arguments):
    _register()
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "scenes"
    result = run("scenes", root, "--train", 6, "--validation", 9, "--seed", 5)
    assert result.exit_code == 0, result.output
    assert f"6 training and 9 validation images are in {root}" in result.output
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(root=root))
    return root, config


def test_signposts_are_written_and_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("scenes", "signs", "--kind", "signposts", "--train", 9, "--validation", 7)
    assert result.exit_code == 0, result.output
    assert "9 training and 7 validation images are in signs" in result.output
    (tmp_path / "config.yaml").write_text(CONFIG.format(root="signs").replace("scenes", "signposts"))
    result = run("check", "--config", "config.yaml")
    assert result.exit_code == 0, result.output
    assert "training: 9 images of 241x145 to 241x145 pixels" in result.output
    result = run("scenes", "more", "--kind", "signposts", "--size", 200)
    assert str(result.exception) == "size: signposts are 241 x 145 pixels, leave it out; got 200"


def test_scenes_are_not_overwritten(scenes):
    root, _ = scenes
    before = sorted(path.name for path in root.rglob("*"))
    result = run("scenes", root)
    assert isinstance(result.exception, FileExistsError)
    assert str(root) in str(result.exception)
    assert sorted(path.name for path in root.rglob("*")) == before


def test_check_of_sound_data(scenes, tmp_path):
    root, config = scenes
    result = run("check", "--config", config)
    assert result.exit_code == 0, result.output
    assert "training: 6 images of 161x161 to 161x161 pixels" in result.output
    assert "validation: 9 images" in result.output
    assert f"nothing is wrong in {root}" in result.output
    assert "look at the labels on the images: check.html" in result.output
    page = (tmp_path / "check.html").read_text()
    assert "Nothing is wrong that a program can see" in page
    assert page.count("<figure>") == 6 + 9


def test_check_names_what_is_wrong(scenes, tmp_path):
    root, config = scenes
    images, labels = root / "images/training", root / "annotations/training"
    (labels / "scene_training_000000.png").unlink()
    (images / "scene_training_000001.jpg").write_bytes(b"no image")
    Image.fromarray(np.full((161, 161), 99, np.uint8)).save(labels / "scene_training_000002.png")
    (images / "._scene_training_000000.jpg").write_bytes(b"")
    page = tmp_path / "pages/data.html"
    result = run("check", "--config", config, "--split", "training", "--page", page)
    assert result.exit_code == 1
    found = [
        "1 file is not there",
        "annotations/training/scene_training_000000.png",
        "1 example cannot be used: not a readable image",
        "images/training/scene_training_000001.jpg",
        "label files hold values that are no class: 99 (in 1 file)",
        "annotations/training/scene_training_000002.png",
        "1 hidden or other file passed over",
    ]
    for text in found:
        assert text in result.output
        assert text in page.read_text()
    assert f"3 problems in {root}" in result.output
    assert "3 problems found" in page.read_text()


def test_check_warns_of_another_scale(scenes, tmp_path):
    _, config = scenes
    result = run("check", "--config", config, "--set", "evaluate.base_size=512")
    assert result.exit_code == 0, result.output
    for text in ("warning: the training images have a long side of 161 pixels", "evaluate.base_size=161"):
        assert text in result.output
    assert "things look 3.2 times larger than in training" in (tmp_path / "check.html").read_text()


def test_the_place_of_the_page_is_looked_at_first(scenes, tmp_path):
    _, config = scenes
    result = run("check", "--config", config, "--page", tmp_path)
    assert isinstance(result.exception, IsADirectoryError)
    assert "reading" not in result.output
    result = run("check", "--config", config, "--page", config / "page.html")
    assert isinstance(result.exception, PermissionError)
    assert f"{config} is no folder" in str(result.exception)


def test_records_can_be_checked_like_files(scenes, tmp_path):
    _, config = scenes
    out = tmp_path / "records"
    result = run("to-tfrecord", "--config", config, "--out", out, "--examples-per-shard", 2)
    assert result.exit_code == 0, result.output
    assert "training: 3 shards, 0 of them were there" in result.output
    again = run("to-tfrecord", "--config", config, "--out", out, "--examples-per-shard", 2)
    assert "training: 3 shards, 3 of them were there" in again.output
    from_files = run("check", "--config", config).stdout
    from_records = run("check", "--config", config, "--set", f"data.root={out}", "--set", "data.format=tfrecord")
    assert from_records.exit_code == 0, from_records.output
    assert from_records.stdout.splitlines()[:-2] == from_files.splitlines()[:-2]
