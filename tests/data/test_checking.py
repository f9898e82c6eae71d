"""What `check_splits` counts, finds wrong, and says to do about it."""

import shutil

import numpy as np
import pytest
from PIL import Image

from psanet_tf.config.data import DataSection
from psanet_tf.data.catalog import dataset_info, info_of
from psanet_tf.data.checking import check_splits
from psanet_tf.data.findings import SHOWN
from psanet_tf.data.layouts import list_files
from psanet_tf.data.readers import read_label

NAMES = ("sea", "land", "sky")


@pytest.fixture
def custom(tmp_path):
    """`custom([[0, 1, 2]], split="train", names=NAMES, **keys)` writes one image per list of label values."""

    def make(values, split="train", names=NAMES, **keys):
        (tmp_path / "names.txt").write_text("\n".join(names))
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True, exist_ok=True)
        for index, row in enumerate(values):
            label = np.resize(np.array(row, np.uint8), (6, 8))
            Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / f"images/{split}/{split}{index}.png")
            Image.fromarray(label).save(tmp_path / f"labels/{split}/{split}{index}.png")
        return DataSection(dataset="custom", root=str(tmp_path), class_names="names.txt", **keys)

    return make


def check(data, split="train"):
    return check_splits(data, [split])[0]


def test_classes_are_counted(scenes_config):
    data = scenes_config().data
    info = dataset_info("scenes")
    labels = np.stack([read_label(example.label_path, info) for example in list_files(data, "validation").examples])
    report = check(data, "validation")
    assert not report.findings
    assert report.pixels.tolist() == [int((labels == index).sum()) for index in range(10)]
    assert report.images.tolist() == [int((labels == index).any(axis=(1, 2)).sum()) for index in range(10)]
    assert report.ignored_pixels == 0
    assert report.sizes == [(161, 161)] * 5
    assert f"{100 * (labels == 0).mean():.3f} %" in report.text(info)
    # Every class that there is is seen in some sample.
    shown = np.stack([read_label(example.label_path, info) for example in report.samples])
    assert set(np.unique(shown)) == set(np.unique(labels))


def test_errors_are_counted_over_all_files_and_the_first_are_named(custom, tmp_path):
    data = custom([[0, 1, 2]] * 30)
    for index in range(25):
        (tmp_path / f"images/train/train{index}.png").write_bytes(b"no image")
    report = check(data)
    (problem,) = report.problems
    assert problem.what == "25 examples cannot be used: not a readable image: unknown format"
    assert "data.on_error=skip" in problem.advice
    assert len(problem.where) == 25
    text = report.text(info_of(data))
    assert text.count("images/train/train") == SHOWN
    assert f"and {25 - SHOWN} more" in text


def test_nothing_readable_at_all_is_said(custom, tmp_path):
    data = custom([[0, 1, 2]] * 3)
    for index in range(3):
        (tmp_path / f"images/train/train{index}.png").write_bytes(b"no image")
    assert check(data).problems[0].what.startswith("not one of 3 examples can be used: not a readable image")


def test_errors_that_differ_are_told_one_by_one(custom, tmp_path):
    data = custom([[0, 1, 2]] * 3)
    for index in (1, 2):
        Image.new("L", (4 + index, 4)).save(tmp_path / f"labels/train/train{index}.png")
    (problem,) = check(data).problems
    assert problem.what == "2 examples cannot be used"
    assert problem.where[0].endswith("train1.png: labels must be of their image's size [6, 8], got [4, 5]")
    assert problem.where[1].endswith("train2.png: labels must be of their image's size [6, 8], got [4, 6]")


@pytest.mark.parametrize(
    ("mode", "what", "advice"),
    [
        ("RGB", "this is 8-bit RGB PNG", "save its first channel alone"),
        ("LA", "this is 8-bit grey with alpha PNG", "save its first channel alone"),
        ("1", "this is 1-bit grey PNG", "save what is meant in 8 bits"),
    ],
)
def test_labels_of_other_kinds_say_what_to_do(custom, tmp_path, mode, what, advice):
    data = custom([[0, 1, 2]])
    Image.new(mode, (8, 6)).save(tmp_path / "labels/train/train0.png")
    (problem,) = check(data).problems
    assert what in problem.what
    assert advice in problem.advice
    assert problem.where == (str(tmp_path / "labels/train/train0.png"),)


@pytest.mark.parametrize(
    ("values", "names", "what", "advice"),
    [
        # Labels that start at 1, with and without 0 for no class.
        ([[1, 2, 3], [1, 2]], NAMES, "no class: 3 (in 1 file)", "start at 1: set data.label_values=[1,2,3] (0 then"),
        (
            [[0, 1, 2, 3]] * 2,
            NAMES,
            "no class: 3 (in 2 files)",
            "if 0 means no class, set data.label_values=[1,2,3]; if",
        ),
        ([[1, 2]], NAMES, "1 class never occurs: sea", "if the labels start at 1, set data.label_values=[1,2,3]"),
        # Other values.
        ([[0, 100, 200]], NAMES, "100 (in 1 file), 200 (in 1 file)", "set data.label_values=[0,100,200]"),
        ([[0, 100, 200, 50, 255]], NAMES, "50 (in 1 file), 100", "set data.label_values=[50,100,200]"),
        ([[0, 1, 2, 3, 4]], NAMES, "3 (in 1 file), 4", "3 names, for values 0..2: add the missing ones, or list"),
        ([range(48)], NAMES, "14 (in 1 file), and 33 more", "so many values come from resizing with smoothing"),
        # Black and white masks.
        ([[0, 255], [0], [255]], ("a", "b"), "black and white", "label_values=[0,255]: black is 'a', white is 'b'"),
        ([[0, 255]], NAMES, "50 % of the pixels do not count", "give each of the 3 classes a value of its own"),
        # No labels, or too few.
        (
            [[255]] * 2,
            NAMES,
            "no pixel of the split has a class, all values in its labels [255]",
            "classes are 0, 1, 2",
        ),
        ([[0, 2, 255]], NAMES, "1 class never occurs: land", "leave it out of class_names and set data.label_values"),
    ],
)
def test_labels_that_cannot_be_meant(custom, values, names, what, advice):
    (problem,) = check(custom(values, names=names)).problems
    assert what in problem.what
    assert advice in problem.advice


@pytest.mark.parametrize("advised", [((1, 2, 3), [[1, 2, 3]]), ((0, 100, 200), [[0, 100, 200, 255]])])
def test_what_is_advised_makes_the_labels_sound(custom, advised):
    label_values, values = advised
    report = check(custom(values, label_values=label_values))
    assert not report.findings
    assert (report.pixels > 0).all()


def test_black_and_white_masks_with_their_values(custom):
    report = check(custom([[0, 255]], names=("a", "b"), label_values=(0, 255)))
    assert not report.findings
    assert report.pixels.tolist() == [24, 24]


def test_values_that_are_not_listed_are_named(custom):
    (problem,) = check(custom([[1, 2, 4]], label_values=(1, 2, 3))).problems
    assert "4 (in 1 file)" in problem.what
    assert "the values of the classes are [1,2,3] (data.label_values or data.label_map): add a class" in problem.advice


def test_a_file_without_labelled_pixels_is_a_note(custom):
    report = check(custom([[0, 1, 2], [255]]))
    (note,) = report.findings
    assert not note.is_problem
    assert note.what == "1 label file without a single pixel that has a class"
    assert note.where[0].endswith("train1.png")


def test_labels_of_another_dataset(tmp_path):
    for folder in ("images/training", "annotations/training"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "images/training/a.png")
    Image.new("L", (4, 4), 200).save(tmp_path / "annotations/training/a.png")
    (problem,) = check(DataSection(root=str(tmp_path)), "training").problems
    assert "no class: 200 (in 1 file)" in problem.what
    assert "not labels as ade20k has them: check data.dataset" in problem.advice


def test_labels_that_nobody_published(tmp_path):
    for path in ("leftImg8bit/test/ulm/x_leftImg8bit.png", "gtFine/test/ulm/x_gtFine_labelIds.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        Image.new("RGB" if "left" in path else "L", (4, 4)).save(tmp_path / path)
    (problem,) = check(DataSection(dataset="cityscapes", root=str(tmp_path)), "test").problems
    assert problem.what.startswith("no pixel of the split has a class")
    assert problem.advice == "Cityscapes publishes no labels of its test split: take val"


def test_missing_files_are_named_with_what_may_be_meant(custom, tmp_path):
    data = custom([[0, 1, 2]] * 2)
    (tmp_path / "labels/train/train1.png").rename(tmp_path / "labels/train/train1_mask.png")
    (problem,) = check(data).problems
    assert problem.what == "1 file is not there"
    assert problem.where[0].endswith("labels/train/train1.png (is it train1_mask.png?)")
    assert "1 of 1 are there as {name}_mask.png" in problem.advice


def test_what_was_passed_over_and_an_empty_split(custom, tmp_path):
    data = custom([])
    (tmp_path / "images/train/day2").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images/train/day2/a.png")
    report = check(data)
    assert [problem.what for problem in report.problems] == [
        "the split holds no images",
        "1 image in folders below passed over",
    ]
    assert "day2" in report.text(info_of(data))


def palette_labels(root, palettes, values=(0, 1)):
    """The report on a split with one label file of these values for each palette."""
    (root / "names.txt").write_text("a\nb\n")
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    for index, palette in enumerate(palettes):
        Image.new("RGB", (2, 1)).save(root / f"images/train/{index}.png")
        label = Image.fromarray(np.array([values], np.uint8))
        label.putpalette(np.asarray(palette, np.uint8).tobytes())
        label.save(root / f"labels/train/{index}.png")
    return check(DataSection(dataset="custom", root=str(root), class_names="names.txt"))


def test_labels_are_counted_by_index_whatever_the_colours(tmp_path):
    """Equal colours once made class 0 of all values that have them, the ignored one included."""
    assert palette_labels(tmp_path, [np.zeros((256, 3))], values=(1, 255)).pixels.tolist() == [0, 1]


def test_entries_that_occur_in_no_pixel_may_differ(tmp_path):
    report = palette_labels(tmp_path, [[(0, 0, 0), (9, 9, 9)], [(0, 0, 0), (9, 9, 9), (1, 2, 3)]])
    assert report.pixels.tolist() == [2, 2]
    assert not report.problems


def test_palettes_fitted_to_each_image_are_doubted(tmp_path):
    report = palette_labels(tmp_path, [[(0, 0, 0), (9, 9, 9)], [(9, 9, 9), (0, 0, 0)], [(9, 9, 9), (0, 0, 0)]])
    (problem,) = report.problems
    assert "0.png and " in problem.what
    assert "(and 1 more files): different palettes: index 0 is (0, 0, 0) in one and (9, 9, 9) in the" in problem.what
    assert "one palette for all files" in problem.advice


def test_of_several_frames_the_first_is_taken(custom, tmp_path):
    data = custom([[0, 1, 2]] * 2)
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue", "green")]
    for index, ending in enumerate(("gif", "tif")):
        (tmp_path / f"images/train/train{index}.png").unlink()
        frames[0].save(tmp_path / f"images/train/train{index}.{ending}", save_all=True, append_images=frames[1:])
    (note,) = check(data).findings
    assert not note.is_problem
    assert note.what == "of 2 images with several frames or pages the first one is taken"
    assert [item.split("/")[-1] for item in note.where] == ["train0.gif: 3 frames", "train1.tif: 3 frames"]


def test_images_in_two_splits(custom):
    data = custom([[0, 1, 2]], image_folder="images/train", label_folder="labels/train")
    train, val = check_splits(data, ["train", "val"])
    assert not train.findings
    (problem,) = val.problems
    assert problem.what == "1 image of 'val' also in 'train'"
    assert "keep the splits apart" in problem.advice
    # One split under both names is meant so.
    assert len(check_splits(data, ["train", "train"])) == 1


def test_images_in_two_splits_under_other_names(custom, tmp_path):
    custom([[0, 1, 2]])
    data = custom([[0, 1, 2]] * 2, split="val")
    rng = np.random.default_rng(0)
    for name in ("train/train0", "val/val0", "val/val1"):
        Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).save(tmp_path / f"images/{name}.png")
    assert not check_splits(data, ["train", "val"])[1].findings
    Image.open(tmp_path / "images/train/train0.png").save(tmp_path / "images/val/val1.bmp")
    (tmp_path / "images/val/val1.png").unlink()
    (problem,) = check_splits(data, ["train", "val"])[1].problems
    assert problem.what == "1 image of 'val' also in 'train'"
    assert [item.split("/images/")[-1] for item in problem.where] == ["train/train0.png)"]
    assert "val1.bmp (as " in problem.where[0]


def test_an_image_damaged_in_the_middle_is_found(scenes_root, scenes_config, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(scenes_root, root)
    path = root / "images/training/scene_training_000003.jpg"
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2 : len(contents) // 2 + 40] = b"\xff\xd9" * 20
    path.write_bytes(contents)
    (problem,) = check(scenes_config(root=str(root)).data, "training").problems
    assert problem.what.startswith("1 image damaged")
    assert "scene_training_000003.jpg" in problem.where[0]


def test_the_layout_of_every_split_is_looked_at_before_anything_is_read(custom, capsys):
    with pytest.raises(FileNotFoundError, match="images/val"):
        check_splits(custom([[0, 1, 2]]), ["train", "val"])
    assert "reading" not in capsys.readouterr().err
