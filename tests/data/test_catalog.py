"""Class names, colours, and values in label files."""

import dataclasses

import numpy as np
import pytest

from psanet_tf.config.data import DataSection
from psanet_tf.data.catalog import OUT_OF_RANGE, DatasetInfo, dataset_info, distinct_colors, info_of, label_value_table


@pytest.mark.parametrize(("name", "classes"), [("ade20k", 150), ("voc2012", 21), ("cityscapes", 19), ("scenes", 10)])
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
    with pytest.raises(ValueError, match="coco.*ade20k, voc2012, cityscapes, scenes"):
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
    (tmp_path / "colors.txt").write_text("0 0 blue\n0 200 0\n")
    with pytest.raises(ValueError, match=r"colors\.txt must hold three numbers"):
        info_of(data)
    (tmp_path / "names.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"names\.txt must hold one class name per line"):
        info_of(data)
