"""The whole way of labels from an annotation tool, as a user types it: from its export to a network, and from there to
labels of new pictures that go back into the tool.
"""

import asyncio
import csv
import itertools
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from chromium import browser, find_chromium, screenshot
from PIL import Image
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf.data.catalog import dataset_info, distinct_colors
from psanet_tf.data.readers import read_image, read_label
from psanet_tf.data.scene_files import write_scenes
from psanet_tf.inference.look_alikes import look_of
from psanet_tf.inference.segmenter import Segmenter

CLASSES = dataset_info("scenes").class_names


def run(*arguments):
    _register()
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def numbers(pattern, text):
    """The numbers in the only place that the pattern fits."""
    (found,) = re.findall(pattern, text)
    return [float(number) for number in ([found] if isinstance(found, str) else found)]


@pytest.fixture
def export(tmp_path):
    """CVAT's "Segmentation mask 1.1" of 40 scenes, its masks as RGB: (folder of the scenes, the archive)."""
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
    lines = ["{}:{},{},{}::".format(name, *color) for name, color in zip(CLASSES, colors.tolist(), strict=True)]
    (root / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]))
    (root / "ImageSets/Segmentation/default.txt").write_text("\n".join(names))
    return scenes, shutil.make_archive(root, "zip", root)


@pytest.fixture
def photos(tmp_path):
    """A folder of 10 scenes that nobody has labelled, and of near copies of three of them."""
    folder = tmp_path / "photos"
    (write_scenes(tmp_path / "others", train=10, validation=1, seed=1) / "images/training").rename(folder)
    first, second, third, *_ = sorted(folder.iterdir())
    Image.open(first).save(folder / "again.jpg", quality=60)
    Image.fromarray(np.clip(read_image(second) + 6.0, 0, 255).astype(np.uint8)).save(folder / "lighter.png")
    Image.open(third).crop((2, 2, 159, 159)).save(folder / "moved.png")
    return folder


@pytest.mark.extended
def test_from_an_export_to_labels_of_new_pictures(export, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes, archive = export
    _import(scenes, archive, tmp_path / "dataset")
    _check(tmp_path / "dataset")
    _train_and_calibrate(tmp_path / "dataset", tmp_path / "run")
    suggestions = _suggest(photos, tmp_path / "run", tmp_path / "round2")
    _read_back(suggestions, tmp_path / "round2", tmp_path)
    if find_chromium():
        pages = ("check.html", "run/evaluation/report.html", "round2/suggestions.html")
        asyncio.run(_open_on_a_phone([tmp_path / page for page in pages]))


async def _open_on_a_phone(pages):
    async with browser() as window:
        for path in pages:
            await window.open(f"file://{path}")
            await window.show_on(390, 844)
            assert await window.evaluate("document.documentElement.scrollWidth") == 390, path
            await screenshot(window, f"phone-{path.stem}")
        assert window.problems == []


def _import(scenes, archive, out):
    seen = run("data", "import", archive)
    assert "40 images with masks (RGB), read by their colours" in seen
    assert "nothing is written" in seen
    shares = [numbers(rf"(\S+) % of the pixels, in \d+ files -> {name}\n", seen) for name in CLASSES]
    assert sum(itertools.chain(*shares)) == pytest.approx(100, abs=0.01)
    output = run("data", "import", archive, "--out", out, "--val", 0.25)
    assert "30 train images, 10 val images (drawn, seed 0)" in output
    assert f"10 classes: {', '.join(CLASSES)}" in output
    assert (out / "classes.txt").read_text().split("\n")[:-1] == list(CLASSES)
    labels = sorted(out.glob("labels/*/*.png"))
    assert len(labels) == 40
    for path in labels:
        truth = read_label(scenes / f"annotations/training/{path.name}", dataset_info("scenes"))
        assert np.array_equal(np.asarray(Image.open(path)), truth)
        assert np.array_equal(
            read_image(out / "images" / path.parent.name / f"{path.stem}.jpg"),
            read_image(scenes / f"images/training/{path.stem}.jpg"),
        )


def _check(dataset):
    output = run("data", "check", "--config", dataset / "dataset.yaml", "--page", "check.html")
    assert f"nothing is wrong in {dataset}" in output
    page = Path("check.html").read_text(encoding="utf-8")
    assert "Nothing is wrong that a program can see" in page
    assert re.findall(r"<b>(\d+)</b><span>with usable labels", page) == ["30", "10"]
    table = page[page.index("<h2>Classes</h2>") :]
    names = r"<td class=\"class\"><span class=\"swatch\"[^>]*></span>(\w+)</td>"
    rows = re.findall(rf"<tr>\s*{names}(.*?)</tr>", table, re.DOTALL)
    assert [name for name, _ in rows] == list(CLASSES)
    labels = [np.asarray(Image.open(path)) for path in dataset.glob("labels/train/*.png")]
    for index, (_, row) in enumerate(rows):
        share, *_ = re.findall(r"<td class=\"number\" data-value=\"([^\"]+)\"", row)
        assert float(share) == pytest.approx(np.mean([label == index for label in labels]), abs=1e-9)


def _train_and_calibrate(dataset, folder):
    # A smaller network than that of the imported dataset's configuration, and two epochs in the place of 667.
    smaller = ("model.width=8", "data.crop_size=[97,97]", "train.learning_rate=3e-3", "train.tensorboard=false")
    settings = [word for setting in smaller for word in ("--set", setting)]
    run("train", "--config", dataset / "dataset.yaml", "--run-dir", folder, "--epochs", 8, *settings)

    def evaluation():
        run("evaluate", "--weights", folder)
        results = folder / "evaluation"
        scores, settings = (json.loads((results / name).read_text()) for name in ("scores.json", "settings.json"))
        assert scores["images"] == len(list((results / "labels").iterdir())) == 10
        assert [row["name"] for row in scores["classes"]] == list(CLASSES)
        return scores, settings["temperature"], (results / "report.html").read_text()

    before, temperature, report = evaluation()
    assert temperature == 1
    assert "<h1>Evaluation on dataset, split val</h1>" in report
    assert "The weights carry no temperature" in report
    # Guessing the most frequent class alone gets grass, about half of all pixels.
    assert before["allacc"] > 0.6
    output = run("calibrate", "--weights", folder)
    (fitted,) = numbers(r"temperature (\S+), fitted to 20000 pixels of 10 images of split 'val'", output)
    sample = numbers(r"expected calibration error: (\S+) % before, (\S+) % after", output)
    assert fitted != 1
    assert f"stored in {folder / 'best.keras'}" in output
    assert Segmenter.load(folder).temperature == pytest.approx(fitted, abs=1e-4)
    after, temperature, report = evaluation()
    assert temperature == pytest.approx(fitted, abs=1e-4)
    assert f"a temperature of {fitted:.4f}" in report
    errors = [100 * scores["expected_calibration_error"] for scores in (before, after)]
    assert errors[1] < errors[0]
    # 20000 of 259210 pixels tell the error of all.
    assert errors == pytest.approx(sample, abs=1)


def _suggest(photos, folder, out):
    """Those that were suggested: (name of the copy, path of the photograph)."""
    output = run("suggest", photos, "--weights", folder, "--count", 8, "--out", out)
    with (out / "suggestions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["rank"]) for row in rows] == list(range(1, 9))
    segmenter = Segmenter.load(folder)
    scores, looks = {}, {}
    for path in photos.iterdir():
        second, first = np.moveaxis(np.sort(segmenter.probabilities(path), axis=-1)[..., -2:], -1, 0)
        scores[path.name], looks[path.name] = 1 - (first - second).mean(), look_of(read_image(path))
    taken, left_out = [], 0
    for name in sorted(scores, key=scores.get, reverse=True):
        if any(looks[name] @ looks[other] > 0.92 for other in taken):
            left_out += 1
        elif len(taken) < 8:
            taken.append(name)
            last = left_out
    found = [row["file"].rpartition("/")[2] for row in rows]
    assert found == taken
    assert [float(row["score"]) for row in rows] == pytest.approx([scores[name] for name in found], abs=1e-5)
    # Of a scene and its near copy one at most.
    originals = sorted(name for name in scores if name.startswith("scene"))[:3]
    for pair in zip(originals, ("again.jpg", "lighter.png", "moved.png"), strict=True):
        assert len(set(pair) & set(found)) < 2
    looks = "looks" if last == 1 else "look"
    assert f"8 of 13 images suggested, {last} that {looks} like one of them left out" in output
    assert sum(int(row["look_alikes"]) for row in rows) == last > 0
    page = (out / "suggestions.html").read_text()
    assert re.findall(r"<h2>(\d+)\. ([\w.]+)</h2>", page) == [
        (row["rank"], name.partition(".")[0]) for row, name in zip(rows, found, strict=True)
    ]
    return [(row["copy"].rpartition("/")[2], photos / name) for row, name in zip(rows, found, strict=True)]


def _read_back(suggestions, folder, out):
    """What the tools are given, as they give it back where nobody has changed anything."""
    run("predict", *(path for _, path in suggestions), "--weights", out / "run", "--out", out / "predictions")
    names = out / "dataset/classes.txt"
    with zipfile.ZipFile(folder / "cvat_masks.zip") as archive:
        assert len([name for name in archive.namelist() if name.startswith("SegmentationClass/")]) == 8
    tasks = json.loads((folder / "label_studio.json").read_text())
    accepted = [{**task, "id": index, "annotations": task["predictions"]} for index, task in enumerate(tasks)]
    (out / "export.json").write_text(json.dumps(accepted))
    for source, ignored in ((folder / "cvat_masks.zip", ["--ignore", "background"]), (out / "export.json", [])):
        back = out / f"of_{source.stem}"
        options = ["--images", folder / "images", "--classes", names, "--val", 0.25, *ignored]
        output = run("data", "import", source, "--out", back, *options)
        assert "6 train images, 2 val images" in output
        assert (back / "classes.txt").read_text() == names.read_text()
        labels = {path.stem: np.asarray(Image.open(path)) for path in back.glob("labels/*/*.png")}
        assert sorted(labels) == sorted(copy.rpartition(".")[0] for copy, _ in suggestions)
        for copy, path in suggestions:
            expected = np.asarray(Image.open(out / f"predictions/labels/{path.stem}.png"))
            assert np.array_equal(labels[copy.rpartition(".")[0]], expected)
