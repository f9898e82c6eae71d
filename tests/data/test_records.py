"""TFRecords: the same batches as from the files, whole shards, resumable."""

import json
import shutil
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


@pytest.fixture(scope="module")
def written(scenes_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    for split in ("training", "validation"):
        write_records(scenes_config().data, split, folder, examples_per_shard=4, workers=2)
    return folder


@pytest.fixture
def records(written, tmp_path):
    """Both splits, which may be changed."""
    return shutil.copytree(written, tmp_path / "records")


def test_batches_are_those_of_the_files(scenes_config, records):
    # Without what makes the graph large and has no part in it.
    augmentation = {"rotate_probability": 0.0, "blur_probability": 0.0}
    from_files = scenes_config(augmentation=augmentation)
    from_records = scenes_config(root=str(records), format="tfrecord", augmentation=augmentation)
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
    paths = sorted(str(path) for path in records.glob("training-*.tfrecord"))
    assert [Path(path).name for path in paths] == [f"training-0000{index}-of-00003.tfrecord" for index in range(3)]
    parsed = [tf.io.parse_single_example(record, keys) for record in tf.data.TFRecordDataset(paths)]
    assert len(parsed) == 11
    label = tf.io.decode_image(parsed[0]["image/segmentation/class/encoded"], channels=1)
    assert label.shape == (161, 161, 1)
    assert int(tf.reduce_max(label)) < 10
    assert int(parsed[0]["image/height"]) == int(parsed[0]["image/width"]) == 161


def test_shards_that_are_there_are_kept(scenes_config, records):
    first, second = sorted(records.glob("training-*.tfrecord"))[:2]
    contents, changed = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    paths, kept, changes = write_records(scenes_config().data, "training", records, examples_per_shard=4)
    assert (len(paths), kept, changes) == (3, 2, [])
    assert second.read_bytes() == contents
    assert first.stat().st_mtime_ns == changed


def test_missing_mixed_and_short_shards_are_named(scenes_config, records):
    data = DataSection(dataset="scenes", root=str(records), format="tfrecord")
    with pytest.raises(FileNotFoundError, match="holds no TFRecords of split 'test'"):
        list_examples(data, "test")
    second = sorted(records.glob("training-*.tfrecord"))[1]
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


def test_a_bad_image_leaves_no_shard(tmp_path, scenes_config):
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


def _copy_of_scenes(scenes_root, tmp_path):
    root = shutil.copytree(scenes_root, tmp_path / "data")
    return root, DataSection(dataset="scenes", root=str(root)), sorted((root / "annotations/training").iterdir())


def _contents(data, folder):
    """Labels of the images in the records, and of the files."""
    info = dataset_info("scenes")
    records = DataSection(dataset="scenes", root=str(folder), format="tfrecord")
    return [
        np.stack([read_example(example, info)[1] for example in list_examples(section, "training")])
        for section in (records, data)
    ]


def test_shards_of_changed_data_are_written_again(scenes_root, tmp_path):
    root, data, labels = _copy_of_scenes(scenes_root, tmp_path)
    out = tmp_path / "records"
    kept_aside = tmp_path / "aside"
    kept_aside.mkdir()
    for label in labels[4:]:
        for path in (label, root / "images/training" / f"{label.stem}.jpg"):
            path.rename(kept_aside / path.name)
    paths, kept, changes = write_records(data, "training", out, examples_per_shard=4)
    assert (len(paths), kept, changes) == (1, 0, [])
    # As found: four images in the records, eleven in the data, and "1 of them was there".
    for path in kept_aside.iterdir():
        path.rename(root / ("annotations" if path.suffix == ".png" else "images") / "training" / path.name)
    paths, kept, changes = write_records(data, "training", out, examples_per_shard=20)
    assert (len(paths), kept) == (1, 0)
    assert changes[0] == "split 'training' had 4 images, has 11"
    assert np.array_equal(*_contents(data, out))
    # Into another number of shards, of which an interruption leaves some.
    paths, kept, changes = write_records(data, "training", out, examples_per_shard=4)
    assert (len(paths), kept, changes) == (3, 0, [])
    assert sorted(out.glob("*.tfrecord")) == paths
    paths[2].unlink()
    Image.fromarray(np.full((161, 161), 3, np.uint8)).save(labels[5])
    unchanged = paths[0].stat().st_mtime_ns
    paths, kept, changes = write_records(data, "training", out, examples_per_shard=4)
    assert kept == 1
    assert changes == [f"1 of 8 labels of split 'training' changed (first: annotations/training/{labels[5].name})"]
    assert paths[0].stat().st_mtime_ns == unchanged
    assert np.array_equal(*_contents(data, out))
    assert write_records(data, "training", out, examples_per_shard=4)[1:] == (3, [])


def test_shards_that_say_nothing_or_hold_other_images_stay(scenes_root, records, tmp_path):
    data = DataSection(dataset="scenes", root=str(scenes_root))
    noted = records / "training.fingerprint.json"
    values = json.loads(noted.read_text())
    for shard in values["shards"].values():
        shard["images"] = {f"other_{name}": marks for name, marks in shard["images"].items()}
    noted.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"TFRecords of split 'training' of other images \(e\.g\. 'other_"):
        write_records(data, "training", records, examples_per_shard=4)
    noted.write_text("{")
    with pytest.raises(ValueError, match=r"training\.fingerprint\.json is damaged"):
        write_records(data, "training", records, examples_per_shard=4)
    noted.unlink()
    with pytest.raises(ValueError, match=r"but no training\.fingerprint\.json that says of which data"):
        write_records(data, "training", records, examples_per_shard=4)
    assert len(list_examples(DataSection(dataset="scenes", root=str(records), format="tfrecord"), "training")) == 11


def test_records_of_other_classes_are_refused(tmp_path):
    root = tmp_path / "data"
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(root / "images/train/a.jpg")
    Image.new("L", (20, 20), 1).save(root / "labels/train/a.png")
    (root / "names.txt").write_text("road\nlake\n")
    data = DataSection(dataset="custom", root=str(root), class_names="names.txt")
    out = tmp_path / "records"
    write_records(data, "train", out)
    records = data.model_copy(update={"root": str(out), "format": "tfrecord"})
    (out / "names.txt").write_text("road\nlake\n")
    assert len(list_examples(records, "train")) == 1
    (out / "names.txt").write_text("lake\nroad\n")
    with pytest.raises(ValueError, match="written with other classes: .*another order; class 0 was 'road', is 'lake'"):
        list_examples(records, "train")
    # The data under other names: all shards are of another truth.
    (root / "names.txt").write_text("lake\nroad\n")
    _, kept, changes = write_records(data, "train", out)
    assert kept == 0
    assert changes[0] == "the class names are in another order"
    assert len(list_examples(records, "train")) == 1
