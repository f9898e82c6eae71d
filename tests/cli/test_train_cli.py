"""`psanet train` as it is typed; a finished run, and making it longer: tests/training/test_run.py."""

import errno
import signal

import pytest
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf.training.interruption import TrainingInterrupted


@pytest.fixture(scope="module")
def run():
    _register()
    return lambda *arguments: CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A configuration of a small network on six small scenes-like images."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for split, count in (("training", 4), ("validation", 2)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            label = rng.integers(0, 5, (33, 33)).astype(np.uint8)
            Image.fromarray(np.repeat(label[..., None] * np.uint8(50), 3, -1)).save(
                root / "images" / split / f"{index}.jpg"
            )
            Image.fromarray(label).save(root / "annotations" / split / f"{index}.png")
    path = root / "tiny.yaml"
    path.write_text(
        f"data: {{dataset: scenes, root: {root}, crop_size: [33, 33]}}\n"
        "model: {blocks: [1, 1, 1, 1], width: 4, use_psa: false}\n"
        "train: {epochs: 1, batch_size: 2, tensorboard: false, cpu_replicas: 1}\n"
    )
    return path


def test_help_names_every_option(run):
    text = run("--help").output
    for option in ("--config", "--run-dir", "--set", "--init", "--epochs", "--extend", "--dry-run", "Examples:"):
        assert option in text


def test_dry_run_describes_and_trains_nothing(run, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Not the size of the images, nor of the form 8n + 1; with the attention module, in bfloat16.
    options = ("data.crop_size=[40, 48]", "model.use_psa=true", "train.precision=mixed_bfloat16")
    result = run("--config", tiny, "--dry-run", *(word for option in options for word in ("--set", option)))
    assert result.exit_code == 0, result.output
    for expected in (
        "images 40 x 48, logits 40 x 48, 10 classes",
        "4 images in 'training', 2 images in 'validation'",
        "steps: 2 per epoch, 2 in 1 epochs",
        "learning rates at the start (train.learning_rate ",
        "attention module and heads: ",
        "XLA compiles the steps: no (train.jit_compile: auto)",
        "memory per replica, estimated:",
        "one step:",
    ):
        assert expected in result.output
    assert not list(tmp_path.iterdir())


def test_settings_for_a_memory_are_proposed_without_a_step(run, tiny):
    result = run("--config", tiny, "--dry-run", "--fit-memory", "601.5MB")
    assert result.exit_code == 0, result.output
    assert "to fit into 601.5 MB (about 601.5 MB per replica):\n  --set train.rematerialize=blocks\n" in result.output
    assert "one step:" not in result.output


def test_fitting_is_for_dry_runs(run, tiny, tmp_path):
    error = run("--config", tiny, "--run-dir", tmp_path / "run", "--fit-memory", "8GB").exception
    assert str(error) == "--fit-memory proposes settings and trains nothing: it goes with --dry-run"
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_is_exit_status_1_and_one_line(run, tiny, tmp_path, monkeypatch):
    def diverging(config, run_dir, extend=False):
        raise FloatingPointError("the loss became nan in epoch 1, step 2 of 2")

    monkeypatch.setattr("psanet_tf.training.trainer.train", diverging)
    result = run("--config", tiny, "--run-dir", tmp_path)
    assert result.exit_code == 1
    assert result.output == "psanet: training stopped: the loss became nan in epoch 1, step 2 of 2\n"


def test_an_interrupted_run_ends_with_the_status_that_schedulers_expect(run, tiny, tmp_path, monkeypatch):
    def interrupted(config, run_dir, extend=False):
        raise TrainingInterrupted(signal.SIGTERM, "stopped by SIGTERM; the same command goes on from there")

    monkeypatch.setattr("psanet_tf.training.trainer.train", interrupted)
    result = run("--config", tiny, "--run-dir", tmp_path)
    assert result.exit_code == 143
    assert result.output == "psanet: stopped by SIGTERM; the same command goes on from there\n"


def test_wrong_input(run, tiny):
    assert "--run-dir is missing" in str(run("--config", tiny).exception)
    assert "--config is missing: the configuration of the run" in str(run().exception)
    assert "holds no run that could go on with its own" in str(run("--run-dir", tiny.parent).exception)
    assert "train.epoch: there is no such key" in str(run("--config", tiny, "--set", "train.epoch=3").exception)
    missing = run("--config", tiny, "--init", "nothing.pth", "--dry-run")
    assert isinstance(missing.exception, FileNotFoundError)


def test_a_full_disk_is_exit_status_1_and_says_what_to_do(run, tiny, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.savez", full)
    result = run("--config", tiny, "--run-dir", tmp_path)
    assert result.exit_code == 1
    assert f"psanet: training stopped: no space left to write {tmp_path / 'state.npz'}: needs about" in result.output
    assert "Make room on that disk, then give the same command again" in result.output
