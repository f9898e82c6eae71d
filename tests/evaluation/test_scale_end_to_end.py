"""Photographs of other sizes than a network was trained with are scored and labelled as right as those of training."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf import PSANet
from psanet_tf.config import dump_config, load_config
from psanet_tf.data.catalog import info_of
from psanet_tf.data.scale import with_long_side
from psanet_tf.evaluation.run import run_evaluation
from psanet_tf.export.saved_model import export_saved_model
from psanet_tf.inference import protocols
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.keras_api import keras
from psanet_tf.training.trainer import prepare_data


def _photograph(rows, columns):
    """Stripes that are narrow on one half and wide on the other, at any resolution, and their labels."""
    along = (np.arange(columns) + 0.5) / columns
    label = np.zeros((rows, columns), np.uint8)
    label[:, columns // 2 :] = 1
    stripes = np.where(along < 0.5, np.sin(2 * np.pi * 20 * along), np.sin(2 * np.pi * 4 * along))
    image = np.broadcast_to((127 + 120 * stripes)[None, :, None], (rows, columns, 3)).astype(np.uint8)
    return image, label


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder whose network knows stripes by their width in pixels, and images of two sizes."""
    root = tmp_path_factory.mktemp("stripes")
    for split, scale in (("train", 1), ("val", 1), ("large", 4)):
        for folder in ("images", "labels"):
            (root / "data" / folder / split).mkdir(parents=True)
        for index in range(2):
            image, label = _photograph((60 + 10 * index) * scale, 120 * scale)
            Image.fromarray(image).save(root / f"data/images/{split}/{index}.png")
            Image.fromarray(label).save(root / f"data/labels/{split}/{index}.png")
    (root / "data/names.txt").write_text("narrow\nwide\n")
    folder = root / "run"
    folder.mkdir()
    (root / "config.yaml").write_text(
        f"data: {{dataset: custom, root: {root / 'data'}, class_names: names.txt, crop_size: [41, 41]}}\n"
        "model: {blocks: [1, 1, 1, 1], width: 8, use_psa: false}\n"
    )
    config = load_config(root / "config.yaml")
    (folder / "config.yaml").write_text(dump_config(config))
    (folder / "dataset.json").write_text(json.dumps(with_long_side(info_of(config.data), config.data).to_dict()))
    keras.utils.set_random_seed(1)
    PSANet(2, blocks=(1, 1, 1, 1), width=8, input_shape=(41, 41, 3), use_psa=False).save(folder / "best.keras")
    return folder


@pytest.fixture
def knows_widths(monkeypatch):
    """Logits by how much neighbouring pixels differ: a network that is right at the scale of its training only."""

    def predict(crops):
        steps = tf.abs(crops[:, :, 1:] - crops[:, :, :-1])[..., :1]
        slope = tf.nn.avg_pool2d(tf.pad(steps, [[0, 0], [0, 0], [0, 1], [0, 0]]), (1, 9), 1, "SAME")
        return tf.concat([slope - 0.45, 0.45 - slope], -1)

    monkeypatch.setattr(protocols, "_inference", lambda model, size: predict)


def test_large_photographs_score_as_small_ones(run, knows_widths, tmp_path, capsys):
    _, small = run_evaluation(run, tmp_path / "small", worst=0)
    assert "warning" not in capsys.readouterr().err
    folder, large = run_evaluation(run, tmp_path / "large", split="large", worst=0)
    assert folder.settings["evaluate"]["base_size"] == 120
    assert small["miou"] > 0.85
    assert large["miou"] == pytest.approx(small["miou"], abs=0.03)
    said = capsys.readouterr().err
    assert "have a long side of 120 pixels, those of split 'large' one of 480 and are resized to 120" in said
    # What a fixed scale did to them.
    _, wrong = run_evaluation(run, tmp_path / "wrong", split="large", overrides=["evaluate.base_size=480"], worst=0)
    assert wrong["miou"] < 0.5
    assert "set 120" in capsys.readouterr().err
    (labeler,) = Segmenter.load(run).labelers
    image, label = _photograph(240, 480)
    assert (labeler.labels(image) == label).mean() > 0.9


def test_the_scale_stays_with_the_weights(run, knows_widths, tmp_path):
    moved = shutil.copytree(run, tmp_path / "run")
    config = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(config.replace(str(run.parent / "data"), str(tmp_path / "nowhere")))
    source = Segmenter.load(moved)
    assert source.base_size == 120
    assert source.info.class_names == ("narrow", "wide")
    assert Segmenter.load(moved, overrides=["evaluate.base_size=60"]).base_size == 60
    assert Segmenter.load(moved, whole=True).base_size is None


def test_exports_and_what_serves_them_know_the_scale(run, tmp_path, monkeypatch):
    network = Segmenter.load(run)
    monkeypatch.setattr("psanet_tf.export.saved_model.verify_export", lambda *arguments: None)
    export_saved_model(network.model, tmp_path / "m", network.info, warm_up=False)
    source = Segmenter.load(tmp_path / "m")
    assert (source.base_size, source.info.long_side) == (120, 120)


def test_checking_and_training_warn_of_other_scales(run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the check writes its page
    override = "data.val_split=large"
    prepare_data(load_config(run.parent / "config.yaml", [override]))
    warning = "warning: the training images have a long side of 120 pixels, those of split 'large' one of 480"
    assert warning in capsys.readouterr().err
    _register()
    arguments = ["data", "check", "--config", str(run.parent / "config.yaml")]
    assert warning in CliRunner().invoke(app, [*arguments, "--set", override]).output
    assert "warning" not in CliRunner().invoke(app, arguments).output
