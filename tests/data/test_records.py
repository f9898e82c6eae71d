"""TFRecords: the same batches as from the files, whole shards, resumable."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from psanet_tf.config.data import DataSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.data.pipeline import evaluation_dataset, training_dataset
from psanet_tf.data.readers import list_examples, read_example
from psanet_tf.data.record_writer import write_records


@pytest.fixture
def records(scenes_config, tmp_path):
    data = scenes_config().data
    for split in ("training", "validation"):
        write_records(data, split, tmp_path, examples_per_shard=4, workers=2)
    return tmp_path


def test_batches_are_those_of_the_files(scenes_config, records):
    from_files = scenes_config()
    from_records = scenes_config(root=str(records), format="tfrecord")
    for make in (lambda config: training_dataset(config, 3).take(3), lambda config: evaluation_dataset(config, 2)):
        pairs = list(zip(make(from_files), make(from_records), strict=True))
        assert len(pairs) == 3
        for (image_a, label_a), (image_b, label_b) in pairs:
            assert np.array_equal(image_a, image_b)
            assert np.array_equal(label_a["logits"], label_b["logits"])


def test_examples_can_be_read_in_python(scenes_config, records):
    data = DataSection(dataset="scenes", root=str(records), format="tfrecord")
    info = dataset_info("scenes")
    examples = list_examples(data, "training")
    assert len({example.name for example in examples}) == 11
    for from_file, from_record in zip(list_examples(scenes_config().data, "training"), examples, strict=True):
        for expected, array in zip(read_example(from_file, info), read_example(from_record, info), strict=True):
            assert np.array_equal(expected, array)


def test_records_hold_the_keys_of_model_garden(records):
    # official/vision/dataloaders/segmentation_input.py: Decoder
    keys = {
        "image/encoded": tf.io.FixedLenFeature((), tf.string),
        "image/height": tf.io.FixedLenFeature((), tf.int64),
        "image/width": tf.io.FixedLenFeature((), tf.int64),
        "image/segmentation/class/encoded": tf.io.FixedLenFeature((), tf.string),
    }
    paths = sorted(str(path) for path in records.glob("training-*"))
    assert [Path(path).name for path in paths] == [f"training-0000{index}-of-00003.tfrecord" for index in range(3)]
    parsed = [tf.io.parse_single_example(record, keys) for record in tf.data.TFRecordDataset(paths)]
    assert len(parsed) == 11
    label = tf.io.decode_image(parsed[0]["image/segmentation/class/encoded"], channels=1)
    assert label.shape == (161, 161, 1)
    assert int(tf.reduce_max(label)) < 10
    assert int(parsed[0]["image/height"]) == int(parsed[0]["image/width"]) == 161


def test_shards_that_are_there_are_kept(scenes_config, records):
    first, second = sorted(records.glob("training-*"))[:2]
    contents, changed = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    paths, kept = write_records(scenes_config().data, "training", records, examples_per_shard=4)
    assert (len(paths), kept) == (3, 2)
    assert second.read_bytes() == contents
    assert first.stat().st_mtime_ns == changed


def test_missing_mixed_and_short_shards_are_named(scenes_config, records):
    data = DataSection(dataset="scenes", root=str(records), format="tfrecord")
    with pytest.raises(FileNotFoundError, match="holds no TFRecords of split 'test'"):
        list_examples(data, "test")
    second = sorted(records.glob("training-*"))[1]
    contents = second.read_bytes()
    second.write_bytes(contents[:-10])
    with pytest.raises(ValueError, match=f"{second.name} is cut short"):
        list_examples(data, "training")
    second.unlink()
    with pytest.raises(FileNotFoundError, match=f"{second.name}: repeat"):
        list_examples(data, "training")
    second.write_bytes(contents)
    (records / "training-00000-of-00009.tfrecord").write_bytes(b"")
    with pytest.raises(ValueError, match="several conversions"):
        list_examples(data, "training")


def test_a_bad_picture_leaves_no_shard(tmp_path, scenes_config):
    root = tmp_path / "data"
    for folder in ("images/training", "annotations/training"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(root / "images/training/a.jpg")
    Image.new("L", (20, 20), 77).save(root / "annotations/training/a.png")
    out = tmp_path / "records"
    with pytest.raises(ValueError, match=r"a\.png: label values out of range: 77"):
        write_records(DataSection(dataset="scenes", root=str(root)), "training", out)
    assert list(out.iterdir()) == []


def test_records_are_not_converted_again(records):
    data = DataSection(dataset="scenes", root=str(records), format="tfrecord")
    with pytest.raises(ValueError, match="holds TFRecords already"):
        write_records(data, "training", records)
