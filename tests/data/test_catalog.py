"""Class names, colours, and values in label files."""

import dataclasses

import numpy as np
import pytest

from psanet_tf.config.data import DataSection
from psanet_tf.data.catalog import OUT_OF_RANGE, DatasetInfo, dataset_info, distinct_colors, info_of, label_value_table


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("ade20k", 150),
        ("voc2012", 21),
        ("cityscapes", 19),
        ("scenes", 10),
        ("signposts", 13),
        ("pascal_context59", 59),
        ("pascal_context60", 60),
        ("coco_stuff164k", 171),
        ("mapillary_vistas", 65),
        ("loveda", 7),
        ("isaid", 16),
    ],
)
def test_known_datasets_have_a_name_and_a_colour_for_each_class(name, classes):
    info = dataset_info(name)
    assert info.num_classes == len(info.class_names) == classes
    assert info.colors.shape == (classes, 3)
    assert info.colors.dtype == np.uint8
    assert len(set(info.class_names)) == classes


def test_facts_cannot_be_changed():
    info = dataset_info("voc2012")
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.name = "other"
    with pytest.raises(ValueError, match="read-only"):
        info.colors[0] = 1


def test_dictionary_and_back():
    info = dataset_info("cityscapes")
    again = DatasetInfo.from_dict(info.to_dict())
    assert again.to_dict() == info.to_dict()
    assert again.colors.dtype == np.uint8


def test_unknown_dataset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="coco.*ade20k, voc2012, cityscapes, scenes, signposts"):
        dataset_info("coco")


def test_colours_must_fit_the_classes():
    with pytest.raises(ValueError, match="one colour of three values"):
        DatasetInfo("mine", ("a", "b"), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="0..255"):
        DatasetInfo("mine", ("a",), np.array([[0, 0, 256]]))


def test_distinct_colors_are_the_colour_map_of_pascal_voc():
    assert np.array_equal(distinct_colors(21), dataset_info("voc2012").colors)
    assert len({tuple(color) for color in distinct_colors(254)}) == 254


def test_values_of_ade20k_start_at_one():
    table = label_value_table(dataset_info("ade20k"))
    assert table[0] == 255
    assert table[1] == 0
    assert table[150] == 149
    assert set(table[151:]) == {OUT_OF_RANGE}


def test_values_of_cityscapes_are_label_ids():
    table = label_value_table(dataset_info("cityscapes"))
    assert [int(table[value]) for value in (7, 8, 11, 26, 33)] == [0, 1, 2, 13, 18]
    assert {int(table[value]) for value in (0, 6, 9, 29, 30, 255)} == {255}
    assert set(table[34:255]) == {OUT_OF_RANGE}
    assert sorted(table[table < 19]) == list(range(19))


def test_train_ids_stay_what_they_are():
    table = label_value_table(dataset_info("cityscapes"), train_ids=True)
    assert list(table[:19]) == list(range(19))
    assert table[255] == 255
    assert set(table[19:255]) == {OUT_OF_RANGE}


def test_names_and_colours_of_a_custom_dataset(tmp_path):
    (tmp_path / "names.txt").write_text("sea\nland\n\n")
    data = DataSection(dataset="custom", root=str(tmp_path), class_names="names.txt")
    assert info_of(data).class_names == ("sea", "land")
    assert np.array_equal(info_of(data).colors, distinct_colors(2))
    (tmp_path / "colors.txt").write_text("0 0 255\n0 200 0\n")
    data = DataSection(dataset="custom", root=str(tmp_path), class_names="names.txt", class_colors="colors.txt")
    assert info_of(data).colors.tolist() == [[0, 0, 255], [0, 200, 0]]


def custom(root, **keys):
    return DataSection(dataset="custom", root=str(root), class_names="names.txt", **keys)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"sea\n\nland\n", r"class_names: line 2 of .*names\.txt is empty, but every line is a class: name it, or"),
        (b"sea\nland\nsea\n", r"class_names: lines 1 and 3 of .*names\.txt both say 'sea'"),
        ("sea\nprairie\nforêt\n".encode("latin-1"), r"names\.txt is not UTF-8 \(byte 0xea in line 3\): save it as"),
        ("sea\n".encode("utf-16"), r"names\.txt is UTF-16: save it as UTF-8"),
        (b" \n\n", r"names\.txt is empty; it must hold one class name per line, in the order of the labels' values"),
        (b"\n".join(b"%d" % line for line in range(255)), r"names\.txt holds 255 lines, a dataset at most 254 classes"),
    ],
)
def test_class_names_that_cannot_be_used(tmp_path, contents, message):
    (tmp_path / "names.txt").write_bytes(contents)
    with pytest.raises(ValueError, match=message):
        info_of(custom(tmp_path))


def test_class_names_may_have_a_byte_order_mark_and_windows_line_ends(tmp_path):
    (tmp_path / "names.txt").write_bytes("sea\r\nforêt\r\n\r\n".encode("utf-8-sig"))
    assert info_of(custom(tmp_path)).class_names == ("sea", "forêt")


def test_missing_class_names_are_named_with_what_is_there(tmp_path):
    (tmp_path / "classes.txt").write_text("sea\n")
    with pytest.raises(
        FileNotFoundError,
        match=r"class_names: there is no file .*names\.txt \(there are classes\.txt\); .*one class name",
    ):
        info_of(custom(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"data\.root: there is no folder .*away"):
        info_of(custom(tmp_path / "away"))
    with pytest.raises(FileNotFoundError, match=r"class_names: there is no file .* \(nor a folder .*lists\)"):
        info_of(DataSection(dataset="custom", root=str(tmp_path), class_names="lists/names.txt"))
    (tmp_path / "images").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"data\.root: .*images holds no classes\.txt, but .*: set data\.root=/"
    ):
        info_of(DataSection(dataset="custom", root=str(tmp_path / "images"), class_names="classes.txt"))
    (tmp_path / "names.txt").mkdir()
    with pytest.raises(FileNotFoundError, match=r"it is a folder"):
        info_of(custom(tmp_path))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("0 0 blue\n0 200 0\n", r"line 1 of .*colors\.txt must be three numbers 0\.\.255 like .*, got '0 0 blue'"),
        ("0 0 1\n0 200\n", r"line 2 of .*colors\.txt must be three numbers .*, got '0 200'"),
        ("0 0 1\n0 0 256\n", r"line 2 of .*colors\.txt must be three numbers .*, got '0 0 256'"),
        ("0 0 1\n", r"colors\.txt holds 1 colours, .*names\.txt 2 classes: it needs one line per class"),
    ],
)
def test_class_colors_that_cannot_be_used(tmp_path, contents, message):
    (tmp_path / "names.txt").write_text("sea\nland\n")
    (tmp_path / "colors.txt").write_text(contents)
    with pytest.raises(ValueError, match=message):
        info_of(custom(tmp_path, class_colors="colors.txt"))


def test_label_values_of_a_custom_dataset(tmp_path):
    (tmp_path / "names.txt").write_text("sea\nland\n")

    def table(*values):
        info = info_of(custom(tmp_path, label_values=values))
        assert DatasetInfo.from_dict(info.to_dict()).label_rule == info.label_rule
        assert info.label_rule.class_values() == list(values)
        known = {value: int(index) for value, index in enumerate(label_value_table(info)) if index != OUT_OF_RANGE}
        assert list(label_value_table(info, train_ids=True)[:3]) == [0, 1, OUT_OF_RANGE]
        return known

    assert table(1, 2) == {0: 255, 1: 0, 2: 1, 255: 255}
    assert table(7, 0) == {0: 1, 7: 0, 255: 255}
    # No value means "no class".
    assert table(0, 255) == {0: 0, 255: 1}
    with pytest.raises(ValueError, match=r"label_values: needs one value for each of the 2 classes .*, got 3"):
        table(1, 2, 3)
