"""Images are ranked by how unsure a network is of them, and written down to be labelled."""

import csv
import json
import re
import types
import urllib.parse
import weakref
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.importing import ImportOptions, import_dataset, inspect_source
from psanet_tf.data.importing.rules import LabelChoices
from psanet_tf.data.importing.where import Where
from psanet_tf.inference.inputs import InputFile
from psanet_tf.inference.suggestion import suggest
from psanet_tf.inference.whole_image import WholeImage

INFO = DatasetInfo("three", ("dark", "middle", "bright"), np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]]))
STEPS = (0, 128, 255)


def _predict(images):
    """Classes by brightness; the nearer to the middle between two of them, the less sure."""
    grey = INFO.images.denormalized(np.asarray(images))[..., 1].astype(np.float32)
    return tf.constant(-np.stack([np.abs(grey - step) for step in STEPS], -1) / 8)


@pytest.fixture
def segmenter():
    return types.SimpleNamespace(
        info=INFO, images=INFO.images, labelers=[WholeImage(_predict, 3, padded=False)], path="/runs/a/best.keras"
    )


def _files(folder, pictures):
    folder.mkdir()
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / name)
    return [InputFile(folder / name, name.partition(".")[0]) for name in pictures]


def _grey(*values):
    """Columns of grey, 8 pixels wide."""
    return np.repeat(np.repeat(np.array([values], "uint8"), 8, 1), 16, 0)[..., None] * np.ones(3, "uint8")


@pytest.fixture
def files(tmp_path):
    return _files(
        tmp_path / "in",
        {
            "sure.png": _grey(0, 128, 255, 255),
            "half sure.png": _grey(64, 64, 255, 255),
            "unsure.png": _grey(192, 64, 192, 64),
            "copy.png": _grey(192, 64, 192, 63),
            "rare.png": _grey(0, 0, 0, 170),
        },
    )


def test_the_least_sure_come_first_and_copies_are_left_out(segmenter, files, tmp_path):
    out = tmp_path / "out"
    suggestions, failures = suggest(segmenter, files, out, count=3)
    assert failures == {}
    assert [(item.file.name, item.look_alikes) for item in suggestions] == [
        ("unsure", 1),
        ("half sure", 0),
        ("rare", 0),
    ]
    assert [item.name for item in suggestions] == ["1_unsure", "2_half_sure", "3_rare"]
    probabilities = segmenter.labelers[0](_grey(64, 64, 255, 255))
    second, first = np.sort(probabilities, -1)[..., -2:].transpose(2, 0, 1)
    assert suggestions[1].score == suggestions[1].margin == pytest.approx((1 - first + second).mean(), abs=1e-5)
    entropy = -(probabilities * np.log(probabilities + 1e-30)).sum(-1).mean() / np.log(3)
    assert suggestions[1].entropy == pytest.approx(entropy, abs=1e-5)
    all_of_them, _ = suggest(segmenter, files, tmp_path / "all", measure="entropy", similarity=1)
    assert len(all_of_them) == 5
    assert [item.score for item in all_of_them] == sorted((item.entropy for item in all_of_them), reverse=True)


def test_what_is_written(segmenter, files, tmp_path):
    out = tmp_path / "out"
    suggestions, _ = suggest(segmenter, files, out, count=2)
    assert {path.name for path in out.iterdir()} == {
        "images",
        "suggestions.csv",
        "suggestions.html",
        "cvat_masks.zip",
        "cvat_labels.json",
        "label_studio.json",
        "label_studio.xml",
    }
    rows = list(csv.DictReader((out / "suggestions.csv").open()))
    assert [row["copy"] for row in rows] == ["images/1_unsure.png", "images/2_half_sure.png"]
    for row, item in zip(rows, suggestions, strict=True):
        assert (out / row["copy"]).read_bytes() == item.file.path.read_bytes()
        assert row["file"] == str(item.file.path)
        assert float(row["score"]) == pytest.approx(item.score, abs=1e-6)
    assert rows[1]["classes"] == "bright 0.5000; dark 0.5000" or rows[1]["classes"] == "dark 0.5000; bright 0.5000"
    page = (out / "suggestions.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)|url\((?!data:)|@import|fetch\(""", page)
    assert page.count('class="suggestion"') == 2
    assert page.count("data:image/jpeg") == 6
    assert "1 that looks like one of them was left out, for it would teach the same.\nThe images" in page
    assert [label["name"] for label in json.loads((out / "cvat_labels.json").read_text())] == list(INFO.class_names)
    tasks = json.loads((out / "label_studio.json").read_text())
    for task, row in zip(tasks, rows, strict=True):
        address = urllib.parse.urlsplit(task["data"]["image"])
        assert address.path == "/data/local-files/"
        assert "/" + urllib.parse.parse_qs(address.query)["d"][0] == str((out / row["copy"]).resolve())
        assert task["predictions"][0]["model_version"] == "best.keras"
    with zipfile.ZipFile(out / "cvat_masks.zip") as archive:
        names = archive.read("ImageSets/Segmentation/default.txt").decode().split()
        assert [f"images/{name}.png" for name in names] == [row["copy"] for row in rows]
    suggest(segmenter, files, tmp_path / "named", count=1, image_url="https://pictures/a?name=")
    tasks = json.loads((tmp_path / "named" / "label_studio.json").read_text())
    assert [task["data"]["image"] for task in tasks] == ["https://pictures/a?name=1_unsure.png"]


def test_what_comes_back_from_the_tools_is_imported_as_it_was(segmenter, files, tmp_path):
    suggestions, _ = suggest(segmenter, files, tmp_path / "out", count=3)
    images = tmp_path / "out" / "images"
    with zipfile.ZipFile(tmp_path / "out" / "cvat_masks.zip") as archive:
        archive.extractall(tmp_path / "cvat")
    # As Label Studio exports predictions that were accepted.
    tasks = json.loads((tmp_path / "out" / "label_studio.json").read_text())
    accepted = [{**task, "id": 1, "annotations": [task["predictions"][0]]} for task in tasks]
    (tmp_path / "export.json").write_text(json.dumps(accepted))
    for source, name, ignore in (("cvat", "of_cvat", ["background"]), ("export.json", "of_label_studio", [])):
        options = ImportOptions(LabelChoices(classes=INFO.class_names, ignore=tuple(ignore)), val_share=0.3)
        import_dataset(inspect_source(tmp_path / source, Where(images=images)), tmp_path / name, options)
        found = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / name / "labels").rglob("*.png")}
        assert sorted(found) == [item.name for item in suggestions]
        for item in suggestions:
            expected = segmenter.labelers[0].labels(np.asarray(Image.open(item.file.path)))
            np.testing.assert_array_equal(found[item.name], expected)


class Watched(WholeImage):
    """Counts at every image how many label maps of earlier ones are still in memory."""

    def __init__(self):
        super().__init__(_predict, 3, padded=False)
        self.label_maps, self.kept = [], []

    def uncertainty(self, image):
        self.kept.append(sum(reference() is not None for reference in self.label_maps))
        found = super().uncertainty(image)
        self.label_maps.append(weakref.ref(found.labels))
        return found


def test_images_are_in_memory_one_at_a_time(segmenter, files, tmp_path):
    segmenter.labelers = [Watched()]
    suggestions, _ = suggest(segmenter, files, tmp_path / "out", similarity=1)
    assert len(suggestions) == 5
    assert len(segmenter.labelers[0].kept) == 10  # looked over, then labelled
    assert max(segmenter.labelers[0].kept) <= 1  # the one before may be on its way out


def test_rare_classes_and_chosen_ones_can_count_for_more(segmenter, files, tmp_path):
    plain, _ = suggest(segmenter, files, tmp_path / "plain", similarity=1)
    balanced, _ = suggest(segmenter, files, tmp_path / "balanced", similarity=1, balanced=True)
    places = [[item.file.name for item in found].index("rare") for found in (plain, balanced)]
    assert places[1] <= places[0]
    ratio = [{item.file.name: item.score for item in found}["rare"] for found in (plain, balanced)]
    # Of middle there are one column in sure.png, and that of rare.png of which the network is not sure.
    pixels = np.array([segmenter.labelers[0].labels(np.asarray(Image.open(file.path))) for file in files])
    shares = np.bincount(pixels.ravel(), minlength=3) / pixels.size
    rarity = 1 / np.sqrt(shares) / (np.sqrt(shares)).sum()
    assert ratio[1] / ratio[0] == pytest.approx(rarity[1], rel=0.02)
    middle, _ = suggest(segmenter, files, tmp_path / "middle", classes=["middle"], count=1)
    assert middle[0].file.name == "rare"
    assert middle[0].score == pytest.approx(ratio[0], rel=0.02)


def test_files_that_cannot_be_read_are_told(segmenter, files, tmp_path):
    files[0].path.write_bytes(b"no image")
    suggestions, failures = suggest(segmenter, files, tmp_path / "out")
    assert list(failures) == [files[0].path]
    assert "sure" not in [item.file.name for item in suggestions]
    for file in files:
        file.path.write_bytes(b"")
    with pytest.raises(ValueError, match="not one image could be read"):
        suggest(segmenter, files, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_bad_arguments(segmenter, files, tmp_path):
    out = tmp_path / "out"
    for arguments, message in (
        ({"count": 0}, "count must be at least 1 image, got 0"),
        ({"measure": "doubt"}, "measure must be one of margin, entropy, got 'doubt'"),
        ({"similarity": 1.5}, "similarity must be 0 to 1, got 1.5"),
        ({"classes": ["grey"]}, "there is no class 'grey'; the classes are dark, middle, bright"),
    ):
        with pytest.raises(ValueError, match=message):
            suggest(segmenter, files, out, **arguments)
    lone = types.SimpleNamespace(**{**vars(segmenter), "info": DatasetInfo("one", ("all",), np.zeros((1, 3)))})
    with pytest.raises(ValueError, match="a network of one class is never unsure"):
        suggest(lone, files, out)
    served = types.SimpleNamespace(**{**vars(segmenter), "labelers": [types.SimpleNamespace(labels=None)]})
    with pytest.raises(ValueError, match="gives labels only"):
        suggest(served, files, out)
    out.mkdir()
    with pytest.raises(FileExistsError, match=r"out exists already: remove it or choose another folder with --out"):
        suggest(segmenter, files, out)
