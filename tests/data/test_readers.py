"""Each dataset in its owner's exact layout, and files that are not what they should be."""

import numpy as np
import pytest
from eager_pipeline import pipeline_labels
from PIL import Image

from psanet_tf.config.data import DataSection
from psanet_tf.data.catalog import dataset_info, distinct_colors, info_of
from psanet_tf.data.readers import list_examples, read_example, read_image, read_label

SIZE = (17, 25)


def write_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_label(path, values, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.resize(np.array(values, np.uint8), SIZE)
    image = Image.fromarray(label)
    if palette:
        image.putpalette(distinct_colors(256).tobytes())
        assert image.mode == "P"
    image.save(path)
    return label


def names(examples):
    return [example.name for example in examples]


def test_ade20k(tmp_path):
    for split in ("training", "validation"):
        write_image(tmp_path / f"images/{split}/ADE_2.jpg")
        write_image(tmp_path / f"images/{split}/ADE_1.jpg")
        write_label(tmp_path / f"annotations/{split}/ADE_1.png", [0, 1, 150])
        write_label(tmp_path / f"annotations/{split}/ADE_2.png", [3])
    data = DataSection(root=str(tmp_path), crop_size=SIZE)
    examples = list_examples(data, "training")
    assert names(examples) == ["ADE_1", "ADE_2"]
    image, label = read_example(examples[0], info_of(data))
    assert image.shape == (*SIZE, 3)
    assert label.ravel()[:6].tolist() == [255, 0, 149, 255, 0, 149]
    assert np.array_equal(pipeline_labels(data)[0], label)


def test_voc2012_reads_the_index_of_palette_images(tmp_path):
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_000033\n2007_000032\n")
    (lists / "train_aug.txt").write_text(
        "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png\n"
        "/JPEGImages/2007_000033.jpg /SegmentationClassAug/2007_000033.png\n"
    )
    for name, values in (("2007_000032", [0, 15, 255]), ("2007_000033", [20, 1])):
        write_image(tmp_path / f"JPEGImages/{name}.jpg")
        write_label(tmp_path / f"SegmentationClass/{name}.png", values, palette=True)
        write_label(tmp_path / f"SegmentationClassAug/{name}.png", values[:2])
    data = DataSection(dataset="voc2012", root=str(tmp_path), crop_size=SIZE)
    assert (data.train_split, data.val_split) == ("train_aug", "val")
    examples = list_examples(data, "val")
    assert names(examples) == ["2007_000032", "2007_000033"]
    label = read_example(examples[0], info_of(data))[1]
    assert label.ravel()[:3].tolist() == [0, 15, 255]
    assert np.array_equal(pipeline_labels(data)[0], label)
    augmented = list_examples(data, "train_aug")
    assert names(augmented) == names(examples)
    assert read_example(augmented[0], info_of(data))[1].ravel()[:3].tolist() == [0, 15, 0]
    (lists / "train_aug.txt").unlink()
    (lists / "trainaug.txt").write_text("2007_000033\n")
    assert list_examples(data, "train_aug")[0].label_path == tmp_path / "SegmentationClassAug/2007_000033.png"


@pytest.mark.parametrize("label_kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(tmp_path, label_kind):
    ids, train_ids = [7, 33, 0, 26], [0, 18, 255, 13]
    for city, frame in (("ulm", "ulm_000000_000019"), ("aachen", "aachen_000001_000019")):
        write_image(tmp_path / f"leftImg8bit/val/{city}/{frame}_leftImg8bit.png")
        write_label(tmp_path / f"gtFine/val/{city}/{frame}_gtFine_labelIds.png", ids)
        write_label(tmp_path / f"gtFine/val/{city}/{frame}_gtFine_labelTrainIds.png", train_ids)
    data = DataSection(dataset="cityscapes", root=str(tmp_path), crop_size=SIZE, label_kind=label_kind)
    examples = list_examples(data, data.val_split)
    assert names(examples) == ["aachen_000001_000019", "ulm_000000_000019"]
    label = read_example(examples[0], info_of(data))[1]
    assert label.ravel()[:4].tolist() == train_ids
    assert np.array_equal(pipeline_labels(data)[0], label)


def test_custom_folders_and_lists(tmp_path):
    (tmp_path / "names.txt").write_text("sea\nland\n")
    for folder in ("a", "b"):
        write_image(tmp_path / f"images/{folder}/1.png")
        write_label(tmp_path / f"labels/{folder}/1.png", [0, 1, 255])
    (tmp_path / "val.txt").write_text(
        f"images/b/1.png labels/b/1.png\n{tmp_path}/images/a/1.png {tmp_path}/labels/a/1.png\n"
    )
    common = {"dataset": "custom", "root": str(tmp_path), "class_names": "names.txt", "crop_size": SIZE}
    folders = DataSection(**common)
    assert names(list_examples(folders, "a")) == ["1"]
    lists = DataSection(**common, list_file="{split}.txt")
    assert names(list_examples(lists, "val")) == ["images_a_1", "images_b_1"]
    label = read_example(list_examples(lists, "val")[0], info_of(lists))[1]
    assert label.ravel()[:3].tolist() == [0, 1, 255]
    assert np.array_equal(pipeline_labels(lists)[0], label)
    (tmp_path / "val.txt").write_text("images/b/1.png\n")
    with pytest.raises(ValueError, match=r"val\.txt: a line must hold an image and its labels, got 'images/b/1\.png'"):
        list_examples(lists, "val")


def test_missing_folders_lists_and_labels_are_named(tmp_path):
    data = DataSection(root=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"data\.root: there is no folder .*nowhere"):
        list_examples(data, "training")
    data = DataSection(root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no folder .*images/training"):
        list_examples(data, "training")
    (tmp_path / "annotations/training").mkdir(parents=True)
    (tmp_path / "images/training").mkdir(parents=True)
    with pytest.raises(ValueError, match="'training' holds no images"):
        list_examples(data, "training")
    write_image(tmp_path / "images/training/a.jpg")
    with pytest.raises(FileNotFoundError, match="1 file of split 'training'.*annotations/training/a.png"):
        list_examples(data, "training")
    with pytest.raises(FileNotFoundError, match="no folder .*ImageSets/Segmentation"):
        list_examples(DataSection(dataset="voc2012", root=str(tmp_path)), "train_aug")


def test_an_image_that_is_none_or_cut_short_is_named(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.jpg is not a readable image"):
        read_image(path)
    write_image(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"a\.jpg is not a readable image.*truncated"):
        read_image(path)
    with pytest.raises(FileNotFoundError, match=r"b\.jpg"):
        read_image(tmp_path / "b.jpg")


def test_label_values_out_of_range_are_named(tmp_path):
    path = tmp_path / "a.png"
    write_label(path, [1, 151, 200])
    with pytest.raises(ValueError, match=r"a\.png: label values out of range: 151, 200; ade20k has values 0\.\.150"):
        read_label(path, dataset_info("ade20k"))


@pytest.mark.parametrize(
    ("pixels", "suffix", "message"),
    [
        (np.eye(4, dtype=bool), ".png", r"1-bit grey PNG; it could mean classes 0 to 1, or grey levels 255 apart"),
        (np.full((4, 4, 3), 7), ".png", r"8-bit RGB PNG; save its first channel alone: .*getchannel\(0\)"),
        (np.full((4, 4, 3), (7, 8, 7)), ".png", r"8-bit RGB PNG; each colour .*set data\.label_palette, or let"),
        (np.full((4, 4, 2), 7), ".png", r"8-bit grey with alpha PNG; save its first channel alone"),
        (np.full((4, 4, 4), 7), ".png", r"8-bit RGB with alpha PNG; save its first channel alone"),
        (
            np.full((4, 4), 256, np.uint16),
            ".png",
            r"16-bit grey PNG with values up to 256; no class can have",
        ),
        (np.full((4, 4), 7), ".jpg", r"JPEG of mode L; JPEG changes values: export the labels anew as PNG"),
        (np.full((4, 4), 7), ".bmp", r"BMP of mode L; save it as PNG: .* keeps the values"),
        (np.full((4, 4, 3), 7), ".tif", r"TIFF of mode RGB; save the class of each pixel as an 8-bit grey PNG"),
    ],
)
def test_labels_of_other_forms_are_refused_with_what_to_do(tmp_path, pixels, suffix, message):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pixels.astype(np.uint8) if pixels.dtype == int else pixels).save(path)
    with pytest.raises(
        ValueError, match=rf"a\{suffix}: labels must be an 8-bit grey or a palette PNG, this is {message}"
    ):
        read_label(path, dataset_info("voc2012"))


def test_labels_of_16_bits_are_read_if_their_values_fit(tmp_path):
    Image.fromarray(np.array([[0, 20, 255]], np.uint16)).save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png", dataset_info("voc2012")).tolist() == [[0, 20, 255]]


@pytest.mark.parametrize(("pixels", "kind"), [(np.float32(0.5), "32-bit numbers"), (np.int32(70000), "32-bit numbers")])
def test_images_without_a_sure_meaning_are_refused(tmp_path, pixels, kind):
    Image.fromarray(np.full((4, 4), pixels)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=rf"a\.tif: TIFF of {kind}, of which nobody knows what is white: save it as 8"):
        read_image(tmp_path / "a.tif")


def turned_photo(path, orientation):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", SIZE[::-1]).save(path, exif=exif)


def test_labels_drawn_on_an_image_as_it_is_stored_are_refused(tmp_path):
    turned_photo(tmp_path / "images/training/a.jpg", 6)
    write_label(tmp_path / "annotations/training/a.png", [1])
    data = DataSection(root=str(tmp_path))
    message = (
        r"size \[25, 17\], got \[17, 25\]; .*a\.jpg is to be turned \(Exif orientation 6\).*turn them too, or take"
    )
    with pytest.raises(ValueError, match=message):
        read_example(list_examples(data, "training")[0], info_of(data))


def test_sizes_must_agree(tmp_path):
    write_image(tmp_path / "images/training/a.jpg")
    (tmp_path / "annotations/training").mkdir(parents=True)
    Image.new("L", (3, 4)).save(tmp_path / "annotations/training/a.png")
    data = DataSection(root=str(tmp_path))
    with pytest.raises(ValueError, match=r"a\.png: labels must be of their image's size \[17, 25\], got \[4, 3\]"):
        read_example(list_examples(data, "training")[0], info_of(data))
