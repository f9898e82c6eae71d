"""What values and colours in label files stand for, on the way to training, checking and evaluation."""

import numpy as np
import pytest
import tensorflow as tf
from eager_pipeline import pipeline_labels
from image_forms import png
from PIL import Image
from pydantic import ValidationError

from psanet_tf.config import Config, DataSection, dump_config, load_config
from psanet_tf.data.catalog import DatasetInfo, info_of
from psanet_tf.data.checking import check_splits
from psanet_tf.data.decoding import label_color_codes
from psanet_tf.data.fingerprint import data_fingerprint
from psanet_tf.data.label_rules import IGNORE_LABEL, OUT_OF_RANGE
from psanet_tf.data.palette_files import read_palette
from psanet_tf.data.pipeline import evaluation_dataset
from psanet_tf.data.pixels import decode_label_colors
from psanet_tf.data.readers import list_examples, read_example
from psanet_tf.data.record_writer import write_records
from psanet_tf.data.unreadable import readable_pipeline_errors

NAMES = ("sea", "land", "sky")
PALETTE = "sea,0,0,255\nland,0,200,0\nland,90,60,0\nsky,255,255,255\nignore,0,0,0\n"
COLORS = np.array([(0, 0, 255), (0, 200, 0), (90, 60, 0), (255, 255, 255), (0, 0, 0)], np.uint8)
CLASSES_OF_COLORS = np.array([0, 1, 1, 2, 255])
CROP = (9, 17)


@pytest.fixture
def dataset(tmp_path):
    """`dataset(label images, label_map={...})` writes them as a validation split -> DataSection."""

    def make(labels, **keys):
        (tmp_path / "names.txt").write_text("\n".join(NAMES))
        for folder in ("images", "labels"):
            (tmp_path / folder / "val").mkdir(parents=True, exist_ok=True)
        for index, label in enumerate(labels):
            Image.new("RGB", label.size).save(tmp_path / f"images/val/{index}.png")
            label.save(tmp_path / f"labels/val/{index}.png")
        return DataSection(
            dataset="custom", root=str(tmp_path), class_names="names.txt", crop_size=CROP, **keys
        )  # fmt: skip

    return make


def grey(values):
    return Image.fromarray(np.resize(np.array(values, np.uint8), CROP))


def read_everywhere(data):
    """[labels as `read_example` has them], after the pipeline, records and the check have agreed."""
    info = info_of(data)
    labels = [read_example(example, info)[1] for example in list_examples(data, "val")]
    assert np.array_equal(pipeline_labels(data), labels)
    (report,) = check_splits(data, ["val"])
    assert report.pixels.tolist() == [int((np.array(labels) == index).sum()) for index in range(info.num_classes)]
    assert report.ignored_pixels == int((np.array(labels) == IGNORE_LABEL).sum())
    return labels


def test_several_values_of_one_class(dataset):
    data = dataset([grey([7, 8, 11, 26, 0, 255])], label_map={7: "sea", 8: 0, 11: "land", 26: 2})
    assert info_of(data).label_rule.values == ((0, 255), (7, 0), (8, 0), (11, 1), (26, 2), (255, 255))
    (labels,) = read_everywhere(data)
    assert labels.ravel()[:6].tolist() == [0, 0, 1, 2, 255, 255]
    assert data_fingerprint(data, "val").label_rule == (
        "0 ignored, 7 as class 0, 8 as class 0, 11 as class 1, 26 as class 2, 255 ignored"
    )


@pytest.mark.parametrize(
    ("keys", "values", "expected"),
    [
        ({"label_values": (1, 2, 3), "ignore_label": 0}, [0, 1, 2, 3], [255, 0, 1, 2]),
        ({"ignore_label": (7, 255)}, [0, 1, 2, 7, 255], [0, 1, 2, 255, 255]),
        ({"label_map": {0: 0, 1: 0, 2: 1, 255: 2}, "ignore_label": 9}, [0, 1, 2, 255, 9], [0, 0, 1, 2, 255]),
    ],
)
def test_values_that_mean_no_class(dataset, keys, values, expected):
    (labels,) = read_everywhere(dataset([grey(values)], **keys))
    assert labels.ravel()[: len(values)].tolist() == expected


def test_no_value_means_no_class_unless_a_key_says_so(dataset):
    """Where 0 and 255 are classes, none of the files' values does; around small images there still is no class."""
    data = dataset([grey([0, 255, 7])], label_values=(0, 255, 7))
    (labels,) = read_everywhere(data)
    assert labels.ravel()[:3].tolist() == [0, 1, 2]
    larger = data.model_copy(update={"crop_size": (17, 25)})
    _, found = next(iter(evaluation_dataset(Config(data=larger), 1)))
    assert np.array_equal(found["logits"][0, 4:13, 4:21], labels)
    assert np.bincount(found["logits"].numpy().ravel(), minlength=256)[255] == 17 * 25 - labels.size
    # 254 is what would stand for "no class" in the pipeline.
    data = dataset([grey([0, 255, 254])], label_values=(0, 255, 7))
    message = r"0\.png: label values out of range: 254; custom has values 0, 7, 255"
    with pytest.raises(ValueError, match=message):
        read_example(list_examples(data, "val")[0], info_of(data))
    with pytest.raises(ValueError, match=message), readable_pipeline_errors(data):
        next(iter(evaluation_dataset(Config(data=data), 1)))
    (problem,) = check_splits(data, ["val"])[0].problems
    assert "254 (in 1 file)" in problem.what


def test_a_value_without_a_class_is_named_with_what_to_set(dataset):
    data = dataset([grey([0, 1, 2, 255])], ignore_label=9)
    with pytest.raises(ValueError, match=r"0\.png: label values out of range: 255; custom has values 0\.\.2, 9"):
        read_example(list_examples(data, "val")[0], info_of(data))
    (problem,) = check_splits(data, ["val"])[0].problems
    assert "255 (in 1 file)" in problem.what
    assert "data.ignore_label" in problem.advice


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label_map": {7: "see"}}, r"label_map: value 7 is mapped to 'see', which is no class of .*names\.txt: write"),
        ({"label_map": {7: 3}}, r"label_map: value 7 is mapped to 3, .*write a name of it, or 0\.\.2; .*ignore_label"),
        ({"label_map": {7: 0, 8: 1}}, r"label_map: no value is mapped to 'sky': map one, or take the name out of"),
        ({"ignore_label": 0}, r"ignore_label: 0 is the value of class 'sea', too: .*label_values, e\.g\. \[1,2,3\]"),
        ({"label_values": (5, 6, 7), "ignore_label": (0, 6)}, r"ignore_label: 6 is the value of class 'land', too"),
        (
            {"label_map": {value: value % 3 for value in range(256)}},
            r"label_map: all 256 values are classes, and one has",
        ),
    ],
)
def test_rules_that_contradict_themselves(dataset, keys, message):
    with pytest.raises(ValueError, match=message):
        info_of(dataset([], **keys))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label_values": (1, 2), "label_map": {1: 0}}, "label_values and label_map: each says what label files hold"),
        ({"label_palette": "a.csv", "ignore_label": 0}, "ignore_label is for values; beside label_palette give"),
        ({"label_map": {256: 0}}, "label_map"),
        ({"ignore_label": (0, 300)}, "ignore_label"),
    ],
)
def test_keys_that_do_not_go_together(keys, message):
    with pytest.raises(ValidationError, match=message):
        DataSection(dataset="custom", root="x", class_names="y", **keys)


def test_rules_are_kept_in_configurations_and_runs(tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    text = (
        f"data: {{dataset: custom, root: {tmp_path}, class_names: names.txt, "
        "label_map: {7: a, 8: 1}, ignore_label: [0, 9]}"
    )
    (tmp_path / "config.yaml").write_text(text)
    config = load_config(tmp_path / "config.yaml")
    assert config.data.label_map == {7: "a", 8: 1}
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config
    info = info_of(config.data)
    assert DatasetInfo.from_dict(info.to_dict()).label_rule == info.label_rule


# Colours.


def colored(indices, mode="RGB"):
    image = Image.fromarray(COLORS[np.resize(np.array(indices), CROP)])
    if mode == "P":
        # A palette in an order of its own, which says nothing.
        order = np.random.default_rng(len(indices)).permutation(len(COLORS))
        image = Image.fromarray(np.argsort(order)[np.resize(np.array(indices), CROP)].astype(np.uint8))
        image.putpalette(COLORS[order].tobytes())
        return image
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_labels_by_colour(dataset, tmp_path, mode):
    (tmp_path / "colors.csv").write_text(PALETTE)
    rows = [[0, 1, 2, 3, 4], [4, 3, 3], [1, 2]]
    data = dataset([colored(row, mode) for row in rows], label_palette="colors.csv")
    labels = read_everywhere(data)
    for row, label in zip(rows, labels, strict=True):
        assert np.array_equal(label, CLASSES_OF_COLORS[np.resize(np.array(row), CROP)])
    assert not check_splits(data, ["val"])[0].problems
    info = info_of(data)
    assert info.colors.tolist() == [[0, 0, 255], [0, 200, 0], [255, 255, 255]]
    assert DatasetInfo.from_dict(info.to_dict()).label_rule == info.label_rule


def test_records_and_fingerprints_of_labels_by_colour(dataset, tmp_path):
    (tmp_path / "colors.csv").write_text(PALETTE)
    data = dataset([colored([0, 1, 2, 3, 4])], label_palette="colors.csv")
    assert data_fingerprint(data, "val").label_rule == (
        "colours #000000 ignored, #0000ff as class 0, #00c800 as class 1, #5a3c00 as class 1, #ffffff as class 2"
    )
    write_records(data, "val", tmp_path / "records", workers=1)
    records = data.model_copy(update={"format": "tfrecord", "root": str(tmp_path / "records")})
    assert np.array_equal(read_everywhere(records), read_everywhere(data))


def test_classes_keep_the_colours_of_their_palette_in_records(dataset, tmp_path):
    (tmp_path / "colors.csv").write_text(PALETTE)
    data = dataset([colored([0, 1, 2, 3, 4])], label_palette="colors.csv")
    folder = tmp_path / "records"
    write_records(data, "val", folder, workers=1)
    records = data.model_copy(update={"format": "tfrecord", "root": str(folder)})
    assert info_of(records).colors.tolist() == info_of(data).colors.tolist() == [[0, 0, 255], [0, 200, 0], [255] * 3]
    # Colours that have changed come with the next conversion.
    (tmp_path / "colors.csv").write_text(PALETTE.replace("sky,255,255,255", "sky,200,255,255"))
    colored([0, 1, 2, 4]).save(tmp_path / "labels/val/0.png")
    write_records(data, "val", folder, workers=1)
    assert info_of(records).colors.tolist() == [[0, 0, 255], [0, 200, 0], [200, 255, 255]]
    (folder / "colors.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.label_palette: there is no file .*records/colors\.csv"):
        info_of(records)
    named = data.model_copy(update={"class_names": str(tmp_path / "names.txt"), "label_palette": "../x.csv"})
    (tmp_path.parent / "x.csv").write_text(PALETTE)
    write_records(named, "val", tmp_path / "others", workers=1)
    assert not list((tmp_path / "others").rglob("*.txt")) + list((tmp_path / "others").rglob("*.csv"))


def test_colours_without_a_class_are_named_and_counted(dataset, tmp_path):
    (tmp_path / "colors.csv").write_text(PALETTE)
    odd = np.array(colored([0, 1, 2, 3]))
    odd[0, :3] = (1, 2, 3), (1, 2, 3), (9, 9, 9)
    data = dataset([Image.fromarray(odd)], label_palette="colors.csv")
    message = (
        r"0\.png: 3 pixels of colours that have no class: #010203 \(2\), #090909 \(1\); "
        r"if these are the labels, add a line for each to data\.label_palette, with the name of a class or 'ignore'"
    )
    with pytest.raises(ValueError, match=message):
        read_example(list_examples(data, "val")[0], info_of(data))
    with pytest.raises(ValueError, match=message), readable_pipeline_errors(data):
        next(iter(evaluation_dataset(Config(data=data), 1)))
    (problem,) = check_splits(data, ["val"])[0].problems
    assert "3 pixels of colours that have no class" in problem.what
    smoothed = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*CROP, 3)).astype(np.uint8))
    data = dataset([smoothed], label_palette="colors.csv")
    with pytest.raises(ValueError, match=r"and \d+ more; so many colours come from smoothing or JPEG: export"):
        read_example(list_examples(data, "val")[0], info_of(data))


def test_both_readers_see_the_same_colours_or_refuse():
    """All kinds of PNG, with and without transparency."""
    rng = np.random.default_rng(0)
    read = tf.function(label_color_codes, [tf.TensorSpec([], tf.string)])
    outcomes = []
    for color_type, channels, depths in ((0, 1, (1, 2, 4, 8, 16)), (2, 3, (8, 16)), (3, 1, (1, 4, 8)), (4, 2, (8,)),
                                         (6, 4, (8,))):  # fmt: skip
        for depth in depths:
            for transparent in (False, True):
                samples = rng.integers(0, 2**depth, (5, 7, channels))
                if color_type in (4, 6) and not transparent:
                    samples[..., -1] = 255
                chunks = []
                if color_type == 3:
                    chunks.append((b"PLTE", rng.integers(0, 256, 3 * 2**depth).astype(np.uint8).tobytes()))
                if transparent and color_type in (0, 2):
                    chunks.append((b"tRNS", samples[0, 0].astype(">u2").tobytes()))
                if transparent and color_type == 3:
                    chunks.append((b"tRNS", b"\xff\0"))
                contents = png(samples, depth, color_type, chunks)
                try:
                    expected = decode_label_colors(contents, "FILE")
                except ValueError:
                    expected = None
                try:
                    found = read(contents).numpy()
                except tf.errors.InvalidArgumentError:
                    found = None
                assert (found is None) == (expected is None), (color_type, depth, transparent)
                assert expected is None or np.array_equal(found, expected)
                outcomes.append((color_type, expected is not None))
    assert {color_type for color_type, known in outcomes if known} == {0, 2, 3, 4, 6}


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (np.zeros((2, 2, 4), np.uint8), r"a\.png: labels whose colours .* 4 of its pixels are transparent; give"),
        (np.zeros((2, 2), np.uint16), r"a\.png: labels whose colours are read .*, this is a 16-bit grey PNG; save it"),
    ],
)
def test_files_whose_colours_are_not_sure(tmp_path, contents, message):
    Image.fromarray(contents).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        decode_label_colors((tmp_path / "a.png").read_bytes(), tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg: labels whose colours .* JPEG of mode RGB; JPEG changes values"):
        decode_label_colors((tmp_path / "a.jpg").read_bytes(), tmp_path / "a.jpg")


EXPECTED = [("facade", (0, 0, 255)), ("dry land", (0, 200, 0))]


@pytest.mark.parametrize(
    "text",
    [
        "facade,0,0,255\ndry land,0,200,0\n",
        "name,r,g,b\nfacade,0,0,255\ndry land,0,200,0\n",
        "id;red;green;blue;class\n0;0;0;255;facade\n1;0;200;0;dry land\n",
        "# label:color_rgb:parts:actions\nfacade:0,0,255::\ndry land:0,200,0::\n",
        "0 0 255 facade\n0 200 0 dry land\n",
        "0 0 255\tfacade\n0 200 0\t\tdry land\n",
        "facade #0000ff\ndry land #00C800\n",
        "name,color\nfacade,0000ff\ndry land,#00c800\n",
    ],
)
def test_forms_of_palettes(tmp_path, text):
    (tmp_path / "colors.txt").write_text(text)
    assert read_palette(tmp_path / "colors.txt", "data.label_palette") == EXPECTED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sea,0,0\n", r"label_palette: line 1 of .*colors\.csv must be a class and its colour per line, .*'sea,0,0'"),
        ("sea,0,0,256\n", r"line 1 of .* must be a class"),
        ("sea,0,0,1\nland,0,0,1\n", r"lines 1 and 2 of .* give 'sea' and 'land' one colour \(0, 0, 1\)"),
        ("name,r,g,b\n", r"colors\.csv holds no colours"),
        ("sea,0,0,1\nland,0,0,2\n", r"colors\.csv has no colour of 'sky': add a line for each class of"),
        ("sea,0,0,1\nwood,0,0,2\n", r"names 'wood', which is no class of .*names\.txt \(sea, land, sky\): call it"),
    ],
)
def test_palettes_that_cannot_be_used(dataset, tmp_path, text, message):
    (tmp_path / "colors.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        info_of(dataset([], label_palette="colors.csv"))
    with pytest.raises(FileNotFoundError, match=r"label_palette: there is no file .*colours\.csv \(there are colors"):
        info_of(dataset([], label_palette="colours.csv"))


def test_every_colour_has_an_entry_in_the_table(dataset, tmp_path):
    (tmp_path / "colors.csv").write_text(PALETTE)
    table = info_of(dataset([], label_palette="colors.csv")).label_rule.color_table()
    assert np.bincount(table, minlength=256)[[0, 1, 2, 255, OUT_OF_RANGE]].tolist() == [1, 2, 1, 1, (1 << 24) - 5]
