"""Fingerprints: every change of the data is seen and named, nothing is hashed twice."""

import json
import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from psanet_tf.config.data import DataSection
from psanet_tf.data import fingerprint as module
from psanet_tf.data.fingerprint import Fingerprint, data_fingerprint, describe_classes, describe_difference
from psanet_tf.data.record_writer import write_records
from psanet_tf.data.scene_files import write_scenes


@pytest.fixture
def data(tmp_path):
    """Six images of a custom dataset, whose files are a minute old."""
    root = tmp_path / "data"
    generator = np.random.default_rng(0)
    for folder in ("images/val", "labels/val"):
        (root / folder).mkdir(parents=True)
    for index in range(6):
        Image.fromarray(generator.integers(0, 255, (9, 12, 3), np.uint8)).save(root / f"images/val/p{index}.png")
        Image.fromarray(generator.integers(0, 3, (9, 12), np.uint8)).save(root / f"labels/val/p{index}.png")
    (root / "classes.txt").write_text("sky\nroad\nlake\n")
    _age(root)
    return DataSection(dataset="custom", root=str(root), class_names="classes.txt")


def _age(root):
    for file in root.rglob("*.png"):
        os.utime(file, ns=(time.time_ns() - 60 * 10**9,) * 2)


@pytest.fixture
def hashed(monkeypatch):
    """Names of the examples whose contents were read; files count as settled as soon as they are written."""
    names = []
    original = module._hash
    monkeypatch.setattr(module, "_hash", lambda example: (names.append(example.name), original(example))[1])
    monkeypatch.setattr(module, "_SETTLED_NS", 0)
    return names


def _invert(path):
    Image.fromarray(2 - np.asarray(Image.open(path))).save(path)


def test_equal_data_have_equal_fingerprints(data, tmp_path):
    first = data_fingerprint(data, "val")
    copy = shutil.copytree(data.root, tmp_path / "copy")
    second = data_fingerprint(data.model_copy(update={"root": str(copy)}), "val")
    assert describe_difference(first, second) == []
    assert first.digest == second.digest
    assert Fingerprint.from_dict(json.loads(json.dumps(first.to_dict()))) == first


def test_changes_are_named(data, tmp_path):
    root = tmp_path / "data"
    before = data_fingerprint(data, "val")
    for index in (1, 3, 4):
        _invert(root / f"labels/val/p{index}.png")
    (root / "classes.txt").write_text("sky\nlake\nroad\n")
    after = data_fingerprint(data, "val")
    assert describe_difference(before, after) == [
        "the class names are in another order",
        "class 1 was 'road', is 'lake'",
        "class 2 was 'lake', is 'road'",
        "3 of 6 labels of split 'val' changed (first: labels/val/p1.png)",
    ]
    assert before.digest != after.digest
    for folder in ("images", "labels"):
        (root / folder / "val/p0.png").rename(root / folder / "val/p9.png")
        (root / folder / "val/p2.png").unlink()
    assert describe_difference(after, data_fingerprint(data, "val")) == [
        "split 'val' had 6 images, has 5",
        "2 of 6 images are gone (first: images/val/p0.png)",
        "1 of 5 images are new (first: images/val/p9.png)",
    ]


def test_another_rule_for_labels_is_named(data):
    before = data_fingerprint(data, "val")
    assert before.label_rule == "0..2 as class 0..2, 255 ignored"
    scenes = module._rule_in_words(
        module.label_value_table(module.info_of(DataSection(root="x"))), module.info_of(data)
    )
    assert scenes == "0 ignored, 1..150 as class 0..149"
    after = Fingerprint("val", before.class_names, scenes, before.images)
    assert describe_difference(before, after) == [f"label values were read so: {before.label_rule}; now: {scenes}"]


def test_classes_in_words():
    assert describe_classes(("a", "b"), ("a", "b")) == []
    assert describe_classes(("a", "b"), ("a", "c", "d")) == ["there were 2 classes, are 3", "class 1 was 'b', is 'c'"]
    many = describe_classes([f"a{i}" for i in range(8)], [f"b{i}" for i in range(8)])
    assert len(many) == 6
    assert many[-1] == "and 3 more classes"


def test_files_are_hashed_once(data, tmp_path, hashed):
    cache = tmp_path / "run" / "hashes.json"
    first = data_fingerprint(data, "val", cache)
    assert len(hashed) == 6
    hashed.clear()
    assert data_fingerprint(data, "val", cache) == first
    assert hashed == []
    # The same size and the same mtime: the time of the file's own change tells.
    path = tmp_path / "data/labels/val/p2.png"
    times, contents = (path.stat().st_atime_ns, path.stat().st_mtime_ns), bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)
    os.utime(path, ns=times)
    changed = data_fingerprint(data, "val", cache)
    assert hashed == ["p2"]
    assert describe_difference(first, changed) == ["1 of 6 labels of split 'val' changed (first: labels/val/p2.png)"]


def test_hashes_of_files_just_written_are_not_kept(data, tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(module, "_SETTLED_NS", 3600 * 10**9)
    cache = tmp_path / "hashes.json"
    for _ in range(2):
        data_fingerprint(data, "val", cache)
    assert len(hashed) == 12


@pytest.mark.parametrize("contents", ["[1]", "{", '{"x": [1, 2]}', b"\xff"])
def test_a_damaged_cache_is_made_again(data, tmp_path, hashed, contents):
    cache = tmp_path / "hashes.json"
    cache.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    first = data_fingerprint(data, "val", cache)
    hashed.clear()
    assert data_fingerprint(data, "val", cache) == first
    assert hashed == []


def test_a_cache_that_cannot_be_written_is_done_without(data, tmp_path):
    (tmp_path / "file").write_text("")
    assert len(data_fingerprint(data, "val", tmp_path / "file" / "hashes.json").images) == 6


def test_records_have_fingerprints_of_their_images(data, tmp_path, hashed):
    root = write_scenes(tmp_path / "scenes", train=3, validation=3)
    files = DataSection(dataset="scenes", root=str(root))
    write_records(files, "validation", tmp_path / "records", examples_per_shard=2)
    records = DataSection(dataset="scenes", root=str(tmp_path / "records"), format="tfrecord")
    cache = tmp_path / "hashes.json"
    of_files, of_records = data_fingerprint(files, "validation"), data_fingerprint(records, "validation", cache)
    digests = [[image.digest for image, _ in fingerprint.images.values()] for fingerprint in (of_files, of_records)]
    assert digests[0] == digests[1]
    assert len({label.digest for _, label in of_records.images.values()}) == 3
    hashed.clear()
    assert data_fingerprint(records, "validation", cache) == of_records
    assert hashed == []


def test_a_fingerprint_file_is_read_back_or_refused(data, tmp_path):
    fingerprint = data_fingerprint(data, "val")
    path = tmp_path / "fingerprint.json"
    fingerprint.save(path)
    assert Fingerprint.load(path) == fingerprint
    for contents in ("{}", "[", '{"format": 99}', json.dumps(fingerprint.to_dict() | {"images": {"p0": [1]}})):
        path.write_text(contents)
        with pytest.raises(ValueError, match=r"fingerprint\.json is damaged"):
            Fingerprint.load(path)


def test_subset_and_digest_follow_the_images(data):
    fingerprint = data_fingerprint(data, "val")
    part = fingerprint.subset(["p1", "p3"])
    assert list(part.images) == ["p1", "p3"]
    assert part.digest != fingerprint.digest
    assert part.digest == fingerprint.subset(["p3", "p1"]).digest
