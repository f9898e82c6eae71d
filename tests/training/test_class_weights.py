"""Median-frequency balancing: the formula, what is counted, and what a run keeps of it."""

import json

import numpy as np
import pytest
from PIL import Image

from psanet_tf.training.class_weights import (
    class_counts,
    median_frequency_weights,
    with_class_weights,
    with_estimated_class_weights,
)


def test_weights_are_median_frequency_over_frequency():
    #           class 0, 1, 2, 3; class 3 is nowhere
    counts = np.array([[6, 2, 0, 0], [0, 4, 0, 0], [10, 10, 20, 0], [0, 0, 0, 0]])
    frequencies = [16 / 48, 16 / 52, 20 / 40]
    expected = [np.median(frequencies) / frequency for frequency in frequencies]
    np.testing.assert_allclose(median_frequency_weights(counts), [*expected, 1], rtol=1e-5)
    assert median_frequency_weights(np.zeros((3, 2), int)) == [1.0, 1.0]


def test_counts_are_those_of_the_label_files(config, dataset_root):
    counts = class_counts(config().data)
    assert counts.shape == (18, 10)
    files = sorted((dataset_root / "annotations" / "training").iterdir())
    for row, file in zip(counts, files, strict=True):
        values = np.asarray(Image.open(file))
        # Value 0 is no class, value v is class v - 1.
        assert row.tolist() == [np.sum(values == index + 1) for index in range(10)]


def test_labels_that_cannot_be_read(config, tmp_path):
    for kind in ("images", "annotations"):
        for split in ("training", "validation"):
            (tmp_path / kind / split).mkdir(parents=True)
            for index in range(2):
                Image.fromarray(np.full((9, 9), index + 1, np.uint8)).save(tmp_path / kind / split / f"{index}.png")
    broken = tmp_path / "annotations" / "training" / "0.png"
    broken.write_bytes(b"no image")
    options = [f"data.root={tmp_path}", "train.class_weights=median_frequency"]
    with pytest.raises(ValueError, match=str(broken)):
        with_class_weights(config(*options), tmp_path / "weights.json")
    skipping = with_class_weights(config(*options, "data.on_error=skip"), tmp_path / "weights.json")
    assert skipping.train.class_weights == (1.0,) * 10


def test_a_run_keeps_its_weights(config, tmp_path):
    file = tmp_path / "class_weights.json"
    given = config("train.class_weights=[1, 1, 1, 1, 1, 1, 1, 1, 1, 2]")
    assert with_class_weights(given, file) is given
    assert not file.exists()
    asked = config("train.class_weights=median_frequency")
    found = with_class_weights(asked, file).train.class_weights
    kept = json.loads(file.read_text())
    assert list(found) == kept["weights"] and kept["rule"] == "median_frequency"
    assert kept["pixels"] == class_counts(asked.data).sum(axis=0).tolist()
    kept["weights"][0] = 7.0
    file.write_text(json.dumps(kept))
    assert with_class_weights(asked, file, compute=False).train.class_weights[0] == 7.0
    file.write_text("{")
    with pytest.raises(
        ValueError, match=r"class_weights.json cannot be read .*the class weights that the run began with"
    ):
        with_class_weights(asked, file, compute=False)


def test_an_estimate_reads_some_of_the_labels_and_says_so(config):
    asked = config("train.class_weights=median_frequency")
    every = class_counts(asked.data)
    counted = np.linspace(0, 17, 5).round().astype(int)
    assert np.array_equal(class_counts(asked.data, 5), every[counted])
    estimated, (line,) = with_estimated_class_weights(asked, 5)
    assert list(estimated.train.class_weights) == median_frequency_weights(every[counted])
    assert "estimated from 5 of the 18 training labels; the run counts all of them, once" in line
    exact, (line,) = with_estimated_class_weights(asked)
    assert list(exact.train.class_weights) == median_frequency_weights(every)
    assert line.endswith("from the 18 training labels")
    given = config("train.class_weights=[1, 1, 1, 1, 1, 1, 1, 1, 1, 2]")
    assert with_estimated_class_weights(given) == (given, [])


def test_a_dry_run_does_not_count_all_labels(config, monkeypatch):
    """On large data that would take longer than all else."""
    from psanet_tf.training import class_weights, dry_run

    read = []
    monkeypatch.setattr(class_weights, "class_counts", lambda data, most=None: read.append(most) or np.ones((2, 10)))
    monkeypatch.setattr(dry_run, "_time_steps", lambda *arguments: [1.0, 1.0])
    text = dry_run.dry_run(config("train.class_weights=median_frequency"))
    assert read == [200]
    assert "class weights (median_frequency): 1 (" in text
