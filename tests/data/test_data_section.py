"""What the `data:` section of a configuration refuses, and its defaults."""

import pytest
from pydantic import ValidationError

from psanet_tf.config.data import AugmentationSection, DataSection


@pytest.mark.parametrize(
    ("dataset", "splits"),
    [
        ("ade20k", ("training", "validation")),
        ("scenes", ("training", "validation")),
        ("signposts", ("training", "validation")),
        ("voc2012", ("train_aug", "val")),
        ("cityscapes", ("train", "val")),
    ],
)
def test_splits_are_those_of_the_dataset_unless_given(dataset, splits):
    data = DataSection(dataset=dataset, root="x")
    assert (data.train_split, data.val_split) == splits
    assert DataSection(dataset=dataset, root="x", val_split="test").val_split == "test"


def test_a_custom_dataset_needs_class_names():
    with pytest.raises(
        ValidationError, match="class_names is required for dataset: custom: a file under data.root with"
    ):
        DataSection(dataset="custom", root="x")


@pytest.mark.parametrize("key", ["class_names", "class_colors", "list_file", "image_folder", "label_folder"])
def test_keys_of_custom_datasets_are_refused_elsewhere(key):
    with pytest.raises(ValidationError, match=f"{key}: only for dataset: custom, got dataset: ade20k"):
        DataSection(root="x", **{key: "y"})


def test_folders_beside_a_list_are_refused():
    keys = {"dataset": "custom", "root": "x", "class_names": "y", "list_file": "{split}.txt"}
    with pytest.raises(ValidationError, match=r"label_folder: list_file {split}\.txt says where images and labels are"):
        DataSection(**keys, label_folder="masks/{split}")


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


@pytest.mark.parametrize("root", ["gs://bucket/ade", "s3://bucket", "https://host/ade.zip", "file:///data"])
def test_addresses_are_no_folders(root):
    with pytest.raises(ValidationError, match="must be a folder of this machine, not an address: copy or mount"):
        DataSection(root=root)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("images/{spli}", r"only {split} can stand in braces, got {spli}"),
        ("images/{}", r"only {split} can stand in braces, got {}"),
        ("images/{split.name}", r"got {split.name}"),
        ("images/{split", r"only {split} can stand in braces"),
    ],
)
@pytest.mark.parametrize("key", ["list_file", "image_folder", "label_folder"])
def test_only_split_stands_in_braces(key, path, message):
    with pytest.raises(ValidationError, match=message):
        DataSection(dataset="custom", root="x", class_names="y", **{key: path})


@pytest.mark.parametrize(
    ("values", "message"), [([0, 0], "a value of its own"), ([0, 256], "less than or equal to 255"), ([-1, 0], "label")]
)
def test_label_values_are_bytes_and_differ(values, message):
    with pytest.raises(ValidationError, match=message):
        DataSection(dataset="custom", root="x", class_names="y", label_values=tuple(values))
    with pytest.raises(ValidationError, match="label_values: only for dataset: custom"):
        DataSection(root="x", label_values=(1, 2))
