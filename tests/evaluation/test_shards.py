"""An evaluation by several machines: merged, it is that of one."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from psanet_tf.evaluation.results import EvaluationFolder
from psanet_tf.evaluation.run import run_evaluation
from psanet_tf.evaluation.shards import shard_folder
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.inference.shards import Shard

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    original = Segmenter.load
    load = functools.cache(lambda path, whole: original(path, whole=whole))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segmenter, "load", lambda weights, config=None, overrides=(), whole=False: load(weights, whole))
        yield


def equal_scores(one, other):
    scores = [json.loads((folder / "scores.json").read_text()) for folder in (one, other)]
    assert scores[0] == scores[1]
    assert (one / "classes.csv").read_bytes() == (other / "classes.csv").read_bytes()


@pytest.fixture(scope="module")
def alone(evaluated_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "evaluation"
    run_evaluation(evaluated_runs / "psanet", out, submission=True)
    return out


def test_shards_merged_are_one_evaluation(evaluated_runs, alone, tmp_path):
    weights, out = evaluated_runs / "psanet", tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="holds no shards: run psanet evaluate with --shard 1/N to N/N first"):
        run_evaluation(weights, out, merge=True)
    done = 0
    for index in (1, 2, 3):
        folder, summary = run_evaluation(weights, out, shard=Shard(index, 4), submission=True)
        assert folder.path == out / "shards" / f"{index}-of-4"
        done += summary["images"]
        # A share may be empty, of few images.
        assert folder.path.exists() == (summary["images"] > 0)
    left = len(Shard(4, 4).take(EvaluationFolder(alone).records(), key=str))
    assert done + left == 6 and left > 0
    with pytest.raises(ValueError, match=rf"{left} images? not done yet, e\.g\. .*\(--shard 4/4: {left} image"):
        run_evaluation(weights, out, merge=True)
    run_evaluation(weights, out, shard=Shard(4, 4), submission=True)
    run_evaluation(weights, out, merge=True, submission=True)
    equal_scores(out, alone)
    for kind in ("labels", "colors", "submission"):
        for file in (alone / kind).iterdir():
            assert (out / kind / file.name).read_bytes() == file.read_bytes()
    # Again, on the folder that is merged already: nothing of another merge stays.
    for file in (out / "labels").iterdir():
        file.write_bytes(b"of other weights")
    run_evaluation(weights, out, merge=True)
    equal_scores(out, alone)
    for file in (alone / "labels").iterdir():
        assert (out / "labels" / file.name).read_bytes() == file.read_bytes()


def test_a_failed_merge_leaves_no_scores_of_something_else(evaluated_runs, alone, tmp_path, monkeypatch):
    out = shutil.copytree(alone, tmp_path / "out")
    run_evaluation(evaluated_runs / "psanet", out, shard=Shard(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "load", lambda *arguments: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(OSError, match="gone"):
            run_evaluation(evaluated_runs / "psanet", out, merge=True)
    assert not (out / "scores.json").exists()


def test_a_prediction_that_is_made_anew_leaves_no_submission_of_the_old_one(evaluated_runs, tmp_path):
    data = shutil.copytree(evaluated_runs / "data", tmp_path / "data")
    weights, out, moved = evaluated_runs / "psanet", tmp_path / "out", [f"data.root={data}"]
    run_evaluation(weights, out, overrides=moved, submission=True)
    file = next(data.glob("annotations/validation/*.png"))
    Image.fromarray(np.zeros_like(np.asarray(Image.open(file)))).save(file)
    run_evaluation(weights, out, overrides=moved)
    left = {path.stem for path in (out / "submission").iterdir()}
    assert left == {path.stem for path in data.glob("annotations/validation/*.png")} - {file.stem}


def test_a_shard_and_merging_are_two_calls(evaluated_runs, tmp_path):
    with pytest.raises(ValueError, match="not both in one call"):
        run_evaluation(evaluated_runs / "psanet", tmp_path / "out", shard=Shard(1, 2), merge=True)


def test_shards_of_different_evaluations_are_told(evaluated_runs, tmp_path):
    weights, out = evaluated_runs / "psanet", tmp_path / "out"
    run_evaluation(weights, out, shard=Shard(1, 2))
    run_evaluation(weights, out, shard=Shard(2, 2), whole=True)
    with pytest.raises(ValueError, match=r"are shards of different evaluations \(whole differ\)"):
        run_evaluation(weights, out, merge=True)


@pytest.mark.parametrize(("fact", "value"), [("colors", [1, 2, 3]), ("class_names", "another name")])
def test_shards_of_different_datasets_are_told(evaluated_runs, tmp_path, fact, value):
    weights, out = evaluated_runs / "psanet", tmp_path / "out"
    run_evaluation(weights, out, shard=Shard(1, 1))
    shutil.copytree(out / "shards" / "1-of-1", out / "shards" / "1-of-2")
    settings = out / "shards" / "1-of-2" / "settings.json"
    values = json.loads(settings.read_text())
    values["dataset"][fact][0] = value
    settings.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"are shards of different evaluations \(dataset differ\)"):
        run_evaluation(weights, out, merge=True)


def test_shards_that_no_longer_hold_are_told(evaluated_runs, tmp_path):
    data = shutil.copytree(evaluated_runs / "data", tmp_path / "data")
    weights, out, moved = evaluated_runs / "psanet", tmp_path / "out", [f"data.root={data}"]
    run_evaluation(weights, out, overrides=moved, shard=Shard(1, 1))
    file = next(data.glob("annotations/validation/*.png"))
    Image.fromarray(np.zeros_like(np.asarray(Image.open(file)))).save(file)
    with pytest.raises(ValueError, match="what the shards have scored does not hold any more: "):
        run_evaluation(weights, out, overrides=moved, merge=True)


def test_images_that_cannot_be_read_are_not_missing(evaluated_runs, tmp_path):
    data = shutil.copytree(evaluated_runs / "data", tmp_path / "data")
    broken = next(data.glob("images/validation/*"))
    broken.write_bytes(broken.read_bytes()[:-200])
    weights, out, moved = evaluated_runs / "psanet", tmp_path / "out", [f"data.root={data}"]
    failed = {}
    for index in (1, 2):
        failed |= run_evaluation(weights, out, overrides=moved, shard=Shard(index, 2))[1]["failed"]
    assert list(failed) == [broken.stem]
    _, summary = run_evaluation(weights, out, overrides=moved, merge=True)
    assert summary["failed"] == failed


@pytest.mark.extended
def test_four_processes_of_which_one_is_killed(evaluated_runs, tmp_path):
    """As four machines: the killed one's shard is given again, and goes on where it was."""
    data = shutil.copytree(evaluated_runs / "data", tmp_path / "data")
    for path in sorted(data.glob("*/validation/*")):
        for index in range(20):
            shutil.copy(path, path.with_stem(f"{path.stem}_{index}"))
    out = tmp_path / "out"

    def start(*options):
        command = [sys.executable, "-m", "psanet_cli", "evaluate", "--weights", evaluated_runs / "psanet"]
        command += ["--out", out, "--set", f"data.root={data}", *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen([str(word) for word in command], env=environment, stdout=subprocess.DEVNULL)

    processes = [start("--shard", f"{index}/4") for index in range(1, 5)]
    records = shard_folder(out, Shard(3, 4)).path / "images.jsonl"
    while not records.exists():
        assert processes[2].poll() is None
        time.sleep(0.01)
    processes[2].send_signal(signal.SIGKILL)
    assert [process.wait(240) for process in processes] == [0, 0, -signal.SIGKILL, 0]
    assert start("--merge").wait(240) == 2
    before = len(shard_folder(out, Shard(3, 4)).records())
    assert start("--shard", "3/4").wait(240) == 0
    assert len(shard_folder(out, Shard(3, 4)).records()) > before
    assert start("--merge").wait(240) == 0
    run_evaluation(evaluated_runs / "psanet", tmp_path / "alone", overrides=[f"data.root={data}"])
    equal_scores(out, tmp_path / "alone")
