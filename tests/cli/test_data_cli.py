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
def scenes(tmp_path):
    root = tmp_path / "scenes"
    result = run("scenes", root, "--train", 3, "--validation", 2, "--seed", 5)
    assert result.exit_code == 0, result.output
    assert f"3 training and 2 validation pictures are in {root}" in result.output
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(root=root))
    return root, config


def test_scenes_are_not_overwritten(scenes):
    root, _ = scenes
    before = sorted(path.name for path in root.rglob("*"))
    result = run("scenes", root)
    assert isinstance(result.exception, FileExistsError)
    assert str(root) in str(result.exception)
    assert sorted(path.name for path in root.rglob("*")) == before


def test_check_of_sound_data(scenes):
    root, config = scenes
    result = run("check", "--config", config)
    assert result.exit_code == 0, result.output
    assert "training: 3 pictures of 161x161 to 161x161 pixels" in result.output
    assert "validation: 2 pictures" in result.output
    assert f"nothing is wrong in {root}" in result.output


def test_check_names_what_is_wrong(scenes):
    root, config = scenes
    images, labels = root / "images/training", root / "annotations/training"
    (labels / "scene_training_000000.png").unlink()
    (images / "scene_training_000001.jpg").write_bytes(b"no picture")
    Image.fromarray(np.full((161, 161), 99, np.uint8)).save(labels / "scene_training_000002.png")
    result = run("check", "--config", config, "--split", "training")
    assert result.exit_code == 1
    assert "1 files are not there" in result.output
    assert "annotations/training/scene_training_000000.png" in result.output
    assert "scene_training_000001.jpg is not a readable picture" in result.output
    assert "scene_training_000002.png: label values out of range: 99" in result.output
    assert f"3 problems in {root}" in result.output


def test_records_can_be_checked_like_files(scenes, tmp_path):
    _, config = scenes
    out = tmp_path / "records"
    result = run("to-tfrecord", "--config", config, "--out", out, "--examples-per-shard", 2)
    assert result.exit_code == 0, result.output
    assert "training: 2 shards, 0 of them were there" in result.output
    again = run("to-tfrecord", "--config", config, "--out", out, "--examples-per-shard", 2)
    assert "training: 2 shards, 2 of them were there" in again.output
    from_files = run("check", "--config", config).output
    from_records = run("check", "--config", config, "--set", f"data.root={out}", "--set", "data.format=tfrecord")
    assert from_records.exit_code == 0, from_records.output
    assert from_records.output.splitlines()[:-1] == from_files.splitlines()[:-1]
