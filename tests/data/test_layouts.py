"""Which files a split is made of, which are passed over, and what is said where something is not as it should be."""

import pytest

from psanet_tf.config import Config
from psanet_tf.config.data import DataSection
from psanet_tf.data.layouts import list_files, listing_warnings
from psanet_tf.data.near_names import instead_of
from psanet_tf.data.readers import list_examples
from psanet_tf.training.trainer import prepare_data


def put(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def custom(root, **keys):
    return DataSection(dataset="custom", root=str(root), class_names="names.txt", **keys)


def found(listing):
    """{what was found: (whether it is a problem, names of the files)}."""
    names = [tuple(item.split("/")[-1] for item in finding.where) for finding in listing.findings]
    return {finding.what: (finding.is_problem, *where) for finding, where in zip(listing.findings, names, strict=True)}


def test_every_file_that_is_passed_over_is_named(tmp_path):
    put(tmp_path, *(f"images/train/{name}" for name in ("a.jpg", "b.JPG", "c.tif", "d.webp", "e.TIFF", "f.png")))
    put(tmp_path, *(f"labels/train/{name}.png" for name in "abcde"), "labels/train/f.PNG")
    put(tmp_path, *(f"images/train/{name}" for name in ("g.avif", "h.heic", "._a.jpg", "Thumbs.db", "empty/notes.txt")))
    put(tmp_path, "images/train/day2/a.jpg", "images/train/day2/deeper/b.png", "images/train/day2/._a.jpg")
    put(tmp_path, "labels/train/z.png", "labels/train/notes.txt")
    listing = list_files(custom(tmp_path), "train")
    assert [example.name for example in listing.examples] == list("abcdef")
    assert not listing.missing()
    assert found(listing) == {
        "2 images in folders below passed over": (True, "day2: 2 images"),
        "2 images of another form (.avif, .heic) passed over: not read as images": (True, "g.avif", "h.heic"),
        "3 hidden or other files passed over: no images": (False, "._a.jpg", "empty", "Thumbs.db"),
        "1 hidden or other file passed over: no labels": (False, "notes.txt"),
        "1 label file without an image": (True, "z.png"),
    }


def test_training_warns_of_what_is_passed_over(tmp_path, capsys):
    for split in ("train", "val"):
        put(tmp_path, f"images/{split}/a.jpg", f"labels/{split}/a.png", f"images/{split}/Thumbs.db")
    put(tmp_path, "images/train/day2/a.jpg", "labels/val/b.png", "labels/val/c.png")
    warnings = listing_warnings(custom(tmp_path))
    assert warnings == [
        "split 'train': 1 image in folders below passed over; psanet data check names it",
        "split 'val': 2 label files without an image; psanet data check names them",
    ]
    (tmp_path / "names.txt").write_text("sea\n")
    prepare_data(Config(data=custom(tmp_path)))
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: split")] == [
        f"warning: {warning}" for warning in warnings
    ]


def test_a_split_without_images_says_what_was_passed_over(tmp_path):
    put(tmp_path, "images/train/day2/a.jpg", "labels/train/a.png")
    with pytest.raises(ValueError, match=r"(?s)'train' holds no images.*1 image in folders below.*day2.*list_file"):
        list_examples(custom(tmp_path), "train")


def test_two_images_of_one_name_are_refused(tmp_path):
    put(tmp_path, "images/train/p0.jpg", "images/train/p0.png", "labels/train/p0.png")
    with pytest.raises(ValueError, match=r"p0\.jpg and p0\.png have one name; labels and outputs go by it: rename or"):
        list_files(custom(tmp_path), "train")
    put(tmp_path, "images/train/p1.jpg", "images/train/p1.bmp")
    with pytest.raises(ValueError, match=r"\(2 such pairs\)"):
        list_files(custom(tmp_path), "train")


def test_two_labels_of_one_name_are_refused(tmp_path):
    put(tmp_path, "images/train/p0.jpg", "labels/train/p0.png", "labels/train/p0.PNG")
    with pytest.raises(ValueError, match=r"p0\.PNG and p0\.png have one name; and their image takes one: remove"):
        list_files(custom(tmp_path), "train")


def test_images_and_labels_in_one_folder_are_refused(tmp_path):
    put(tmp_path, "all/a.jpg", "all/a.png")
    with pytest.raises(ValueError, match=r"all: images and labels need a folder each, or write a list"):
        list_files(custom(tmp_path, image_folder="all", label_folder="all"), "train")


@pytest.mark.parametrize(
    ("label", "form"),
    [
        ("p{}_mask.png", r"\{name\}_mask\.png"),
        ("mask-p{}.png", r"mask-\{name\}\.png"),
        ("p{}.jpg.png", r"\{name\}\.jpg\.png"),
    ],
)
def test_labels_that_are_named_otherwise_are_found(tmp_path, label, form):
    put(tmp_path, *(f"images/train/p{index}.jpg" for index in (1, 2, 10)))
    put(tmp_path, *(f"labels/train/{label.format(index)}" for index in (1, 2, 10)))
    listing = list_files(custom(tmp_path), "train")
    assert not listing.findings
    with pytest.raises(
        FileNotFoundError,
        match=r"3 files of split 'train' \(3 images\) not there, the first is .*p1\.png \(is it .*\?\); "
        rf"3 of 3 are there as {form}; labels take their images' names: rename them, or write a list",
    ):
        list_examples(custom(tmp_path), "train")


def test_labels_of_another_form_are_found(tmp_path):
    put(tmp_path, "images/train/p1.jpg", "labels/train/p1.jpg")
    with pytest.raises(
        FileNotFoundError, match=r"1 of 1 are there as {name}\.jpg; .* must be PNG \(other forms change"
    ):
        list_examples(custom(tmp_path), "train")


def test_a_label_with_a_slip_of_the_pen_is_suggested(tmp_path):
    put(tmp_path, "images/train/harbour.jpg", "labels/train/harbor.png")
    put(tmp_path, "images/train/p1.jpg", "labels/train/p2.png")
    assert instead_of(tmp_path / "labels/train/p1.png") == ""
    assert instead_of(tmp_path / "labels/train/t2.png") == ""
    with pytest.raises(FileNotFoundError, match=r"harbour\.png \(is it harbor\.png\?\)"):
        list_examples(custom(tmp_path), "train")


LISTS = {
    "tab": b"images/a 1.jpg\tlabels/a 1.png\nimages/b.jpg\tlabels/b.png\n",
    "csv": b'images/a 1.jpg,labels/a 1.png\n"images/b.jpg", "labels/b.png"\n',
    "bom": b"\xef\xbb\xbfimages/b.jpg labels/b.png\r\nimages/a 1.jpg\tlabels/a 1.png\r\n",
    "backslashes": b"images\\a 1.jpg,labels\\a 1.png\nimages\\b.jpg labels\\b.png",
    "comments": b"# image label\n\nimages/b.jpg   labels/b.png\n# the other\nimages/a 1.jpg, labels/a 1.png\n",
    "slashes": b"/images/b.jpg /labels/b.png\n/images/a 1.jpg,/labels/a 1.png\n",
}


@pytest.mark.parametrize("form", LISTS)
def test_forms_of_lists(tmp_path, form):
    put(tmp_path, "images/a 1.jpg", "images/b.jpg", "labels/a 1.png", "labels/b.png")
    (tmp_path / "train.txt").write_bytes(LISTS[form])
    examples = list_examples(custom(tmp_path, list_file="{split}.txt"), "train")
    assert [example.name for example in examples] == ["a 1", "b"]
    assert [example.label_path for example in examples] == [tmp_path / "labels/a 1.png", tmp_path / "labels/b.png"]


def test_paths_are_looked_up_under_the_root_first(tmp_path, monkeypatch):
    root, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    put(root, "images/a.jpg", "labels/a.png")
    put(elsewhere, "images/a.jpg", "labels/a.png", "images/b.jpg", "labels/b.png")
    monkeypatch.chdir(elsewhere)
    (root / "train.txt").write_text(f"images/a.jpg labels/a.png\n{elsewhere}/images/b.jpg {elsewhere}/labels/b.png\n")
    examples = list_examples(custom(root, list_file="train.txt"), "train")
    assert [example.image_path for example in examples] == [root / "images/a.jpg", elsewhere / "images/b.jpg"]
    # Not relative to where the command happens to run.
    (root / "train.txt").write_text("images/b.jpg labels/b.png\n")
    with pytest.raises(FileNotFoundError, match=r"the first is .*data/images/b\.jpg"):
        list_examples(custom(root, list_file="train.txt"), "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "images/a.jpg\n",
            r"line 1 of .*train\.txt: a line must hold .*, got 'images/a\.jpg'; put a tab or a comma between paths$",
        ),
        ("a 1.jpg a 1.png\n", r"got 'a 1\.jpg a 1\.png'; put a tab or a comma between paths with spaces"),
        ("image,label\na.jpg,a.png\n", r"line 1 of .*train\.txt looks like a heading: put # before it, or remove it"),
        (
            "# x\nC:\\data\\a.jpg C:\\data\\a.png\n",
            r"line 2 of .*'C:\\\\data\\\\a\.jpg' is no path of this machine: write",
        ),
        ("gs://bucket/a.jpg gs://bucket/a.png\n", r"'gs://bucket/a\.jpg' is no path of this machine"),
        ("images/a.jpg a.png\nimages/a.jpg b.png\n", r"images/a\.jpg is listed twice: remove one of the lines"),
        ("images/a.jpg a.png\nimages/a.png a.png\n", r"a\.jpg and .*a\.png have one name, .*: rename one"),
        ("\n", r"list_file: .*train\.txt is empty; it must hold an image and its labels per line, e\.g\."),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, text, message):
    put(tmp_path, "images/a.jpg", "images/a.png", "a.png", "b.png")
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        list_examples(custom(tmp_path, list_file="{split}.txt"), "train")


def test_a_list_that_is_not_there(tmp_path):
    put(tmp_path, "training.txt")
    with pytest.raises(
        FileNotFoundError, match=r"list_file: there is no file .*train\.txt \(there are training\.txt\)"
    ):
        list_examples(custom(tmp_path, list_file="{split}.txt"), "train")


@pytest.mark.parametrize(
    ("dataset", "split", "inside", "given"),
    [
        ("voc2012", "val", "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", "VOCdevkit"),
        ("voc2012", "val", "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", ""),
        ("voc2012", "val", "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", "VOCdevkit/VOC2012/ImageSets"),
        ("cityscapes", "train", "leftImg8bit/train/ulm/x_leftImg8bit.png", "leftImg8bit"),
        ("cityscapes", "train", "leftImg8bit/train/ulm/x_leftImg8bit.png", "leftImg8bit/train"),
        ("ade20k", "training", "ADEChallengeData2016/images/training/a.jpg", ""),
        ("ade20k", "training", "ADEChallengeData2016/images/training/a.jpg", "ADEChallengeData2016/images"),
        ("custom", "train", "fields/images/train/a.jpg", "fields/images"),
    ],
)
def test_a_root_that_is_off_by_a_level_or_two_is_told(tmp_path, dataset, split, inside, given):
    put(tmp_path, inside)
    marks = {"voc2012": "ImageSets", "cityscapes": "leftImg8bit", "ade20k": "images", "custom": "images"}
    right = (tmp_path / inside[: inside.index(marks[dataset])].rstrip("/")).as_posix()
    keys = {"class_names": "names.txt"} if dataset == "custom" else {}
    with pytest.raises(FileNotFoundError, match=rf"data\.root: .* but {right} does: set data\.root={right}$"):
        list_examples(DataSection(dataset=dataset, root=str(tmp_path / given), **keys), split)


def test_roots_that_are_not_there(tmp_path):
    (tmp_path / "fields").mkdir()
    with pytest.raises(FileNotFoundError, match=r"data\.root: there is no folder .*feilds \(is it fields\?\)"):
        list_examples(custom(tmp_path / "feilds"), "train")
    with pytest.raises(FileNotFoundError, match=r"data\.root: ~ is not expanded in ~/fields: write /"):
        list_examples(custom("~/fields"), "train")
    put(tmp_path, "file.zip")
    with pytest.raises(FileNotFoundError, match=r"file\.zip \(it is a file\)"):
        list_examples(custom(tmp_path / "file.zip"), "train")


def test_a_split_that_is_not_there_is_told_with_those_that_are(tmp_path):
    put(tmp_path, "images/train/a.jpg", "images/val/b.jpg", "ImageSets/Segmentation/train.txt", "JPEGImages/a.jpg")
    with pytest.raises(FileNotFoundError, match=r"no folder .*images/trian \(.*images holds the folders train, val\)"):
        list_examples(custom(tmp_path), "trian")
    voc = DataSection(dataset="voc2012", root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no list .*val\.txt \(there are train\)"):
        list_examples(voc, "val")
    with pytest.raises(
        FileNotFoundError, match=r"no list .*train_aug\.txt .*SBD.*or train on .* data\.train_split=train"
    ):
        list_examples(voc, "train_aug")
    (tmp_path / "ImageSets/Segmentation/train_aug.txt").write_text("a\n")
    with pytest.raises(FileNotFoundError, match=r"SegmentationClassAug/a\.png .*data\.train_split=train"):
        list_examples(voc, "train_aug")


def test_labels_that_nobody_published(tmp_path):
    put(
        tmp_path,
        "leftImg8bit/test/ulm/x_leftImg8bit.png",
        "leftImg8bit/train/ulm/x_leftImg8bit.png",
        "JPEGImages/a.jpg",
    )
    cityscapes = DataSection(dataset="cityscapes", root=str(tmp_path), label_kind="labelTrainIds")
    with pytest.raises(
        FileNotFoundError, match=r"gtFine/test .*; Cityscapes publishes no labels of its test split: take"
    ):
        list_examples(cityscapes, "test")
    with pytest.raises(FileNotFoundError, match=r"gtFine/train .*; unpack gtFine_trainvaltest\.zip into data\.root"):
        list_examples(cityscapes, "train")
    put(tmp_path, "gtFine/train/ulm/x_gtFine_labelIds.png")
    with pytest.raises(
        FileNotFoundError, match=r"labelTrainIds\.png .*csCreateTrainIdLabelImgs .*data\.label_kind=labelIds"
    ):
        list_examples(cityscapes, "train")
    put(tmp_path, "ImageSets/Segmentation/test.txt")
    (tmp_path / "ImageSets/Segmentation/test.txt").write_text("a\n")
    with pytest.raises(FileNotFoundError, match=r"VOC publishes no labels of its test split: take val"):
        list_examples(DataSection(dataset="voc2012", root=str(tmp_path)), "test")


def test_files_of_cityscapes_that_are_passed_over(tmp_path):
    put(tmp_path, "leftImg8bit/val/ulm/a_leftImg8bit.png", "leftImg8bit/val/b_leftImg8bit.png")
    put(tmp_path, "leftImg8bit/val/ulm/c.png", "leftImg8bit/val/ulm/._a_leftImg8bit.png")
    put(tmp_path, "gtFine/val/ulm/a_gtFine_labelIds.png", "gtFine/val/ulm/a_gtFine_color.png")
    put(tmp_path, "gtFine/val/ulm/z_gtFine_labelIds.png")
    listing = list_files(DataSection(dataset="cityscapes", root=str(tmp_path)), "val")
    assert [example.name for example in listing.examples] == ["a"]
    assert sorted(sum((names[1:] for names in found(listing).values()), ())) == [
        "._a_leftImg8bit.png",
        "b_leftImg8bit.png",
        "c.png",
        "z_gtFine_labelIds.png",
    ]
