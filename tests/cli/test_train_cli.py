"""`psanet train` as it is typed."""

import errno
import logging
import os
import signal

import absl.logging
import pytest
from typer.testing import CliRunner

from psanet_cli.app import _register, app, quiet_libraries
from psanet_tf.training.interruption import TrainingInterrupted


@pytest.fixture(scope="module")
def run():
    _register()
    return lambda *arguments: CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A configuration of a small network on six small scenes-like pictures."""
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


def test_last_lines_say_where_things_are_and_what_to_do_next(run, tiny, tmp_path):
    result = run("--config", tiny, "--run-dir", tmp_path / "run", "--set", "train.learning_rate=0.001")
    assert result.exit_code == 0, result.output
    for expected in (
        "best validation mIoU",
        f"checkpoints: {tmp_path / 'run' / 'best.keras'}",
        f"{tmp_path / 'run' / 'metrics.csv'}",
        f"psanet evaluate --weights {tmp_path / 'run'}",
    ):
        assert expected in result.output
    assert "tensorboard" not in result.output
    assert (tmp_path / "run" / "best.keras").is_file()
    again = run("--config", tiny, "--run-dir", tmp_path / "run")
    assert "train.learning_rate was 0.001, is 0.01" in str(again.exception)
    longer = run("--run-dir", tmp_path / "run", "--epochs", 2)
    assert "give --extend --epochs 2" in str(longer.exception)
    longer = run("--run-dir", tmp_path / "run", "--epochs", 2, "--extend")
    assert longer.exit_code == 0, longer.output
    assert "best validation mIoU" in longer.output and " of 2\n" in longer.output


def test_dry_run_describes_and_trains_nothing(run, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("--config", tiny, "--dry-run")
    assert result.exit_code == 0, result.output
    for expected in (
        "images 33 x 33, logits 33 x 33, 10 classes",
        "4 pictures in 'training', 2 pictures in 'validation'",
        "steps: 2 per epoch, 2 in 1 epochs",
        "memory per replica, estimated:",
        "one step:",
    ):
        assert expected in result.output
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_is_exit_status_1_and_one_line(run, tiny, tmp_path):
    result = run(
        "--config", tiny, "--run-dir", tmp_path, "--set", "train.learning_rate=3e38", "--set", "train.epochs=4"
    )
    assert result.exit_code == 1
    assert "psanet: training stopped: the loss became" in result.output


def test_an_interrupted_run_ends_with_the_status_that_schedulers_expect(run, tiny, tmp_path, monkeypatch):
    def interrupted(config, run_dir, extend=False):
        raise TrainingInterrupted(signal.SIGTERM, "stopped by SIGTERM; the same command goes on from there")

    monkeypatch.setattr("psanet_tf.training.trainer.train", interrupted)
    result = run("--config", tiny, "--run-dir", tmp_path)
    assert result.exit_code == 143
    assert result.output == "psanet: stopped by SIGTERM; the same command goes on from there\n"


@pytest.mark.parametrize(("debug", "level"), [("", "3"), ("1", "0")])
def test_log_lines_of_libraries_are_shown_for_debugging_only(debug, level, monkeypatch):
    monkeypatch.setenv("PSANET_DEBUG", debug)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    verbosity, logger = absl.logging.get_verbosity(), logging.getLogger("tensorflow")
    python_level = logger.level
    absl.logging.set_verbosity(absl.logging.WARNING)
    logger.setLevel(logging.WARNING)
    try:
        quiet_libraries()
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == level
        assert logger.isEnabledFor(logging.WARNING) == absl.logging.level_warning() == bool(debug)
    finally:
        absl.logging.set_verbosity(verbosity)
        logger.setLevel(python_level)


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
