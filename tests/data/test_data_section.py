"""What the `data:` section of a configuration refuses, and its defaults."""

import pytest
from pydantic import ValidationError

from psanet_tf.config.data import AugmentationSection, DataSection


@pytest.mark.parametrize(
    ("dataset", "splits"),
    [
        ("ade20k", ("training", "validation")),
        ("scenes", ("training", "validation")),
        ("voc2012", ("train_aug", "val")),
        ("cityscapes", ("train", "val")),
    ],
)
def test_splits_are_those_of_the_dataset_unless_given(dataset, splits):
    data = DataSection(dataset=dataset, root="x")
    assert (data.train_split, data.val_split) == splits
    assert DataSection(dataset=dataset, root="x", val_split="test").val_split == "test"


def test_a_custom_dataset_needs_class_names():
    with pytest.raises(ValidationError, match="class_names is required for dataset: custom"):
        DataSection(dataset="custom", root="x")


@pytest.mark.parametrize("key", ["class_names", "class_colors", "list_file", "image_folder", "label_folder"])
def test_keys_of_custom_datasets_are_refused_elsewhere(key):
    with pytest.raises(ValidationError, match=f"{key}: only for dataset: custom, got dataset: ade20k"):
        DataSection(root="x", **{key: "y"})


@pytest.mark.parametrize("scale", [(2.0, 0.5), (0.0, 1.0), (-1.0, 1.0)])
def test_scales_must_be_positive_and_in_order(scale):
    with pytest.raises(ValidationError, match="needs 0 < smallest <= largest"):
        AugmentationSection(scale=scale)


@pytest.mark.parametrize(
    "wrong", [{"on_error": "ignore"}, {"format": "lmdb"}, {"workers": 0}, {"dataset": "coco"}, {"label_kind": "color"}]
)
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DataSection(root="x", **wrong)
