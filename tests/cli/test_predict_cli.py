"""`psanet predict`, as a user calls it."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from psanet_cli.app import _register, app, main
from psanet_tf.data.catalog import dataset_info

SURE = ["--confidence", "--probabilities"]


def run(*arguments):
    _register()
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name, size in (("a.jpg", (30, 50, 3)), ("b.png", (61, 20, 3))):
        Image.fromarray(generator.integers(0, 256, size).astype("uint8")).save(tmp_path / "in" / name)
    return tmp_path


@pytest.mark.parametrize("how", [[], ["--whole", *SURE], ["--set", "evaluate.scales=[0.5,1.0]"]])
def test_every_image_gets_labels_and_an_overlay_of_its_size(evaluated_runs, folder, how):
    out = folder / "out"
    result = run(folder / "in", "--weights", evaluated_runs / "psanet", "--out", out, "--submission", *how)
    assert result.exit_code == 0, result.output
    assert f"overlays: {out / 'overlays'}" in result.output
    for name, size in (("a", (50, 30)), ("b", (20, 61))):
        labels, overlay = (Image.open(out / kind / f"{name}.png") for kind in ("labels", "overlays"))
        assert (labels.size, labels.mode, overlay.size, overlay.mode) == (size, "P", size, "RGB")
        np.testing.assert_array_equal(
            np.asarray(Image.open(out / "submission" / f"{name}.png")), np.asarray(labels).astype(int) + 1
        )
        assert (out / "side_by_side" / f"{name}.png").is_file()
        assert (out / "probabilities" / f"{name}.npz").is_file() == (SURE[1] in how)
        if SURE[0] in how:
            confidence = Image.open(out / "confidence" / f"{name}.png")
            archive = np.load(out / "probabilities" / f"{name}.npz")
            probabilities = archive["probabilities"]
            assert (confidence.mode, probabilities.dtype) == ("L", np.float16)
            assert archive["classes"].tolist() == list(dataset_info("scenes").class_names)
            np.testing.assert_allclose(probabilities.sum(-1, dtype=np.float64), 1, atol=2e-3)
            largest = probabilities.astype(np.float64).max(-1)
            np.testing.assert_allclose(np.asarray(confidence) / 255, largest, atol=0.5 / 255 + 1e-3)
            np.testing.assert_array_equal(
                np.take_along_axis(probabilities, np.asarray(labels)[..., None], -1)[..., 0], probabilities.max(-1)
            )


def test_a_second_call_labels_the_same_images_and_says_what_it_passes_over(evaluated_runs, folder):
    (folder / "in" / "notes.txt").write_text("x")
    arguments = (folder / "in" / "**", "--weights", evaluated_runs / "fcn", "--out", folder / "in" / "out", "--whole")
    assert run(*arguments).exit_code == 0
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert f"6 results of an earlier call in {folder / 'in' / 'out'} passed over" in result.output
    assert "1 hidden or other file passed over" in result.output
    assert sorted(file.name for file in (folder / "in" / "out" / "labels").iterdir()) == ["a.png", "b.png"]


def test_broken_files_are_said_at_the_end_with_status_1(evaluated_runs, folder):
    (folder / "in" / "c.png").write_bytes(b"no image")
    (folder / "in" / "d.mp4").write_bytes(b"no video")
    result = run(folder / "in", "--weights", evaluated_runs / "fcn", "--out", folder / "out")
    assert result.exit_code == 1
    assert "2 of 4 files could not be read" in result.output
    assert "c.png is not a readable image" in result.output
    assert "d.mp4 is not a readable video" in result.output
    assert sorted(file.name for file in (folder / "out" / "labels").iterdir()) == ["a.png", "b.png"]


def test_shards_share_a_folder_and_do_nothing_twice(evaluated_runs, folder):
    for name in "ghij":
        Image.open(folder / "in" / "a.jpg").save(folder / "in" / f"{name}.png")
    out = folder / "out"
    arguments = (folder / "in", "--weights", evaluated_runs / "fcn", "--out", out, "--whole", "--shard")
    counts = []
    for index in (1, 2):
        result = run(*arguments, f"{index}/2")
        assert result.exit_code == 0, result.output
        counts.append(int(re.search(rf"shard {index}/2: (\d) of 6 files, 0 of them done already", result.output)[1]))
    assert sum(counts) == 6 and 0 not in counts
    assert sorted(file.stem for file in (out / "side_by_side").iterdir()) == list("abghij")
    (out / "labels" / "a.png").unlink()
    again = [run(*arguments, f"{index}/2").output for index in (1, 2)]
    assert sum(int(re.search(r"(\d) of them done already", text)[1]) for text in again) == 5
    assert (out / "labels" / "a.png").is_file()
    result = run(folder / "in", "--weights", evaluated_runs / "fcn", "--out", out, "--shard", "1/2")
    assert "holds results made otherwise (evaluate: " in str(result.exception)
    other = shutil.copytree(evaluated_runs / "fcn", folder / "run")
    dataset = json.loads((other / "dataset.json").read_text())
    dataset["class_names"][1], dataset["colors"][2] = "another name", [1, 2, 3]
    (other / "dataset.json").write_text(json.dumps(dataset))
    result = run(folder / "in", "--weights", other, "--out", out, "--whole", "--shard", "1/2")
    assert re.search(
        r"otherwise \(classes\[1\]: \w+, now another name; colors\[2\]: \[.*\], now \[1, 2, 3\]\)",
        str(result.exception),
    )
    result = run(folder / "in", "--server", "grpc://h:1/p", "--shard", "1/2")
    assert "--shard goes with --weights" in str(result.exception)


def test_a_video(evaluated_runs, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as target:
        stream = target.add_stream("mpeg4", rate=5)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for value in (0, 128, 255):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), value, "uint8"), format="rgb24")
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    result = run(tmp_path / "clip.mp4", "--weights", evaluated_runs / "fcn", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "clip.mp4 (3 frames)" in result.output


def test_wrong_input_is_one_line_and_status_2(evaluated_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["psanet", "predict", "none.jpg", "--weights", str(evaluated_runs / "fcn")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PSANET_DEBUG", raising=False)
    with pytest.raises(SystemExit) as exit_status:
        main()
    assert exit_status.value.code == 2
    assert "psanet: error: there is no file or folder none.jpg" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_served_model_labels_as_the_exported_one(evaluated_runs, folder, tmp_path, monkeypatch):
    from psanet_tf.config import EvaluateSection
    from psanet_tf.export.saved_model import export_saved_model
    from psanet_tf.inference.segmenter import Segmenter
    from psanet_tf.serving.server.server import Server

    section = EvaluateSection(base_size=56)
    model = Segmenter.load(evaluated_runs / "fcn").model
    # Whether the export labels as the network: tests/serving/test_export.py.
    monkeypatch.setattr("psanet_tf.export.saved_model.verify_export", lambda *arguments: None)
    export_saved_model(model, tmp_path / "model", dataset_info("scenes"), section, warm_up=False)
    with Server(tmp_path / "model", rest_port=0, grpc_port=None) as server:
        address = f"http://127.0.0.1:{server.rest_port}/model"
        served = run(folder / "in", "--server", address, "--out", folder / "served")
    assert served.exit_code == 0, served.output
    exported = run(folder / "in", "--weights", tmp_path / "model", "--out", folder / "exported")
    assert exported.exit_code == 0, exported.output
    refused = run(folder / "in", "--weights", tmp_path / "model", "--out", folder / "sure", "--confidence")
    assert "gives labels only: for confidence and probabilities load the weights" in str(refused.exception)
    assert not (folder / "sure").exists()
    for name in ("a.png", "b.png"):
        first, second = (np.asarray(Image.open(folder / kind / "labels" / name)) for kind in ("served", "exported"))
        np.testing.assert_array_equal(first, second)


def test_a_server_that_is_not_there_or_not_asked_for_rightly(folder, monkeypatch):
    address = "http://127.0.0.1:9/psanet"  # the discard service, which nothing runs
    result = run(folder / "in", "--server", address, "--out", folder / "out", "--whole")
    assert "is a served model" in str(result.exception)
    result = run(folder / "in", "--server", address, "--weights", "runs", "--out", folder / "out")
    assert str(result.exception) == "give either --weights or --server"
    monkeypatch.setattr("psanet_tf.serving.client.client.time.sleep", lambda seconds: None)
    result = run(folder / "in", "--server", address, "--out", folder / "out")
    assert isinstance(result.exception, OSError)
    assert "UNAVAILABLE" in str(result.exception)
    assert not (folder / "out").exists()
