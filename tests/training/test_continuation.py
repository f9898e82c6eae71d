"""With which configurations, data and devices a run goes on, and what is said of the weights then."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from psanet_tf.config import flat_config
from psanet_tf.data.record_writer import write_records
from psanet_tf.training import continuation
from psanet_tf.training.continuation import check_data, describe_continuation, device_facts, find_continuation
from psanet_tf.training.key_groups import EXACT, FIXED, LENGTH, ROUNDING, group_of
from psanet_tf.training.run_folder import TrainingFolder, environment
from psanet_tf.training.schedule import Schedule
from psanet_tf.training.state import Position

CHANGED = {
    "data.root": "elsewhere",
    "data.workers": "3",
    "data.on_error": "skip",
    "train.cpu_replicas": "2",
    "train.jit_compile": "true",
    "train.validate_every": "2",
    "train.tensorboard": "true",
    "train.log_every": "7",
    "train.early_stopping": "{patience: 3}",
    "evaluate.flip": "false",
}


@pytest.fixture
def started(config, tmp_path):
    """A run folder as it is before the first step; 3 epochs."""
    run = TrainingFolder(tmp_path / "run")
    checked = config()
    info = continuation_info(checked)
    with run.locked():
        run.write_facts(checked, info, environment(["CPU:0"]), Schedule(4, 3), check_data(run, checked, False))
    return run


def continuation_info(config):
    from psanet_tf.data.catalog import info_of

    return info_of(config.data)


def test_every_key_of_a_configuration_is_in_one_group(config):
    """A new key has to be thought about: may a run go on where it has changed?"""
    names = [*EXACT, *ROUNDING, LENGTH, *FIXED]
    keys = flat_config(config())

    def names_of(key):
        return [name for name in names if key == name or key.startswith(name + ".")]

    assert {key: names_of(key) for key in keys if len(names_of(key)) != 1} == {}
    assert [name for name in names if not any(name in names_of(key) for key in keys)] == []
    assert group_of("train.a_key_that_nobody_thought_about") is FIXED


def test_a_new_folder_and_a_folder_of_something_else(config, tmp_path):
    run = TrainingFolder(tmp_path)
    assert find_continuation(TrainingFolder(tmp_path / "new"), config()) is None
    # What a run notes before it is one, and what a killed process leaves.
    run.schedule_file.write_text("{}")
    run.class_weights_file.write_text("{}")
    (tmp_path / ".config.abcdefgh.yaml").write_text("")
    assert find_continuation(run, config()) is None
    with pytest.raises(ValueError, match="holds no run that could be extended"):
        find_continuation(run, config(), extend=True)
    run.best_file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds best.keras but no run; choose a new or an empty folder"):
        find_continuation(run, config())


@pytest.mark.parametrize("key", CHANGED)
def test_harmless_changes_are_said_and_allowed(started, config, key):
    found = find_continuation(started, config(f"{key}={CHANGED[key]}"))
    # Of a whole section, as early stopping is, each key is told of.
    assert found.changes and all(line.startswith(key) and " was " in line for line in found.changes)
    assert not found.extends


def test_a_section_that_is_gone_is_said(config, tmp_path):
    run = TrainingFolder(tmp_path / "run")
    one = config("train.early_stopping={patience: 3}")
    with run.locked():
        run.write_facts(one, continuation_info(one), {}, Schedule(4, 3), {})
    changes = find_continuation(run, config()).changes
    assert "train.early_stopping.patience was 3, is None" in changes


def test_changes_that_matter_are_refused_with_both_values(started, config):
    overrides = ["train.learning_rate=0.02", "model.blocks=[1, 1, 2, 1]", "train.class_weights=[1, 2]"]
    overrides += ["train.loss={dice: 1, cross_entropy: 1}", "data.augmentation.color_jitter.hue=0.1"]
    with pytest.raises(ValueError) as error:
        find_continuation(started, config(*overrides, "train.validate_every=2"))
    for expected in (
        "train.learning_rate was 0.01, is 0.02",
        "model.blocks was [1, 1, 1, 1], is [1, 1, 2, 1]",
        "train.class_weights was None, is [1.0, 2.0]",
        "train.loss was {'cross_entropy': 1.0}, is {'dice': 1.0, 'cross_entropy': 1.0}",
        "data.augmentation.color_jitter.hue was 0.0, is 0.1",
        f"--init {started.last_file}",
    ):
        assert expected in str(error.value)
    assert "validate_every" not in str(error.value)


def test_the_order_of_patterns_matters(config, tmp_path):
    run = TrainingFolder(tmp_path / "run")
    one = config("train.learning_rate_multipliers={psa: 2, backbone: 0.5}")
    with run.locked():
        run.write_facts(one, continuation_info(one), {}, Schedule(4, 3), {})
    assert find_continuation(run, one).changes == ()
    with pytest.raises(ValueError, match="learning_rate_multipliers was"):
        find_continuation(run, config("train.learning_rate_multipliers={backbone: 0.5, psa: 2}"))


def test_epochs_change_by_extending_only(started, config):
    with pytest.raises(ValueError, match=r"a run of 3 epochs, train.epochs is 5; give --extend --epochs 5"):
        find_continuation(started, config("train.epochs=5"))
    for extend in (False, True):
        with pytest.raises(ValueError, match=r"give --epochs 3; a run can be made longer, not shorter"):
            find_continuation(started, config("train.epochs=2"), extend)
    found = find_continuation(started, config("train.epochs=5"), extend=True)
    assert (found.extends, found.epochs, found.changes) == (True, 5, ())
    assert not find_continuation(started, config(), extend=True).extends

    # Killed between the two files that know of the extension, or after both: the same command goes on.
    found.schedule.extended(5, Position(epoch=3)).save(started.schedule_file)
    assert Schedule.load(started.schedule_file) == Schedule(4, 5, ((3, 5, 3, 0),))
    assert not find_continuation(started, config("train.epochs=5"), extend=True).extends
    assert not find_continuation(started, config("train.epochs=5")).extends
    with pytest.raises(ValueError, match=r"a run of 5 epochs, train.epochs is 3; give --epochs 5"):
        find_continuation(started, config())


def test_a_schedule_that_is_damaged_or_missing(started, config):
    started.schedule_file.write_text('{"epochs": 3')
    with pytest.raises(ValueError, match=r"schedule.json is damaged"):
        find_continuation(started, config())
    started.schedule_file.unlink()
    with pytest.raises(ValueError, match=r"has no schedule.json.*--init .*last.keras"):
        find_continuation(started, config())
    started.environment_file.write_text("[{")
    with pytest.raises(ValueError, match=r"environment.json is damaged .*move it away"):
        started.starts()


@pytest.fixture
def copied(config, dataset_root, tmp_path):
    """(run folder that has started, `config` of a copy of its data, folder of that copy)."""
    root = tmp_path / "copy"
    shutil.copytree(dataset_root, root)
    run = TrainingFolder(tmp_path / "run")
    start = config()
    with run.locked():
        run.write_facts(start, continuation_info(start), {}, Schedule(4, 3), check_data(run, start, False))
    return run, lambda *overrides: config(f"data.root={root}", *overrides), root


def test_data_that_were_moved_are_the_same(copied):
    run, config, _ = copied
    check_data(run, config(), True)


def test_data_that_changed_are_refused_with_what_to_do(copied):
    run, config, root = copied
    for index in range(8, 18):
        (root / "images" / "training" / f"{index}.jpg").unlink()
        (root / "annotations" / "training" / f"{index}.png").unlink()
    label = root / "annotations" / "validation" / "3.png"
    Image.fromarray(255 - np.asarray(Image.open(label))).save(label)
    with pytest.raises(ValueError) as error:
        check_data(run, config(), True)
    for expected in (
        f"the data in {root} are not those that the run in {run.path} started with",
        "split 'training' had 18 images, has 8",
        "1 of 5 labels of split 'validation' changed (first: annotations/validation/3.png)",
        "Put them back, then the same command goes on",
        f"--init {run.last_file}",
    ):
        assert expected in str(error.value)
    # They are compared with those of the start, not with those of the last try.
    with pytest.raises(ValueError, match="had 18 images, has 8"):
        check_data(run, config(), True)


def test_records_of_the_same_images_and_of_others(copied, tmp_path):
    run, config, root = copied
    for split in ("training", "validation"):
        write_records(config().data, split, tmp_path / "records")
    records = config("data.format=tfrecord", f"data.root={tmp_path / 'records'}")
    found = check_data(run, records, True)
    # From here on the run is on records, whose own fingerprint is kept.
    run.write_facts(records, continuation_info(records), {}, Schedule(4, 3), found)
    check_data(run, records, True)
    check_data(run, config(), True)
    label = root / "annotations" / "validation" / "2.png"
    before = label.read_bytes()
    label.write_bytes((root / "annotations" / "validation" / "1.png").read_bytes())
    with pytest.raises(ValueError, match=r"1 of 5 labels of split 'validation' changed \(first: annotations/vali"):
        check_data(run, config(), True)
    label.write_bytes(before)
    image = root / "images" / "validation" / "3.jpg"
    image.write_bytes((root / "images" / "validation" / "4.jpg").read_bytes())
    with pytest.raises(ValueError, match=r"1 of 5 images of split 'validation' are others \(first: images/vali"):
        check_data(run, config(), True)
    shutil.rmtree(root / "images" / "training")
    shutil.copytree(root / "images" / "validation", root / "images" / "training")
    for index in range(5, 18):
        (root / "annotations" / "training" / f"{index}.png").unlink()
    with pytest.raises(ValueError, match=r"split 'training' had 18 images, has 5"):
        check_data(run, config(), True)


def test_images_in_another_order_are_other_data(copied, monkeypatch):
    run, config, _ = copied
    original = continuation.data_fingerprint

    def reversed_order(*arguments):
        found = original(*arguments)
        return dataclasses.replace(found, images=dict(reversed(found.images.items())))

    monkeypatch.setattr(continuation, "data_fingerprint", reversed_order)
    with pytest.raises(ValueError, match="the images of split 'training' are in another order"):
        check_data(run, config(), True)


FACTS = {"replicas": 2, "device_kind": "CPU", "packages": {"tensorflow": "2.20.0", "keras": "3.15.0"}}
GOES_ON = continuation.Continuation(Schedule(4, 3), 3, ("train.validate_every was 1, is 2",))


def test_what_is_said_of_the_weights(config):
    def said(before=FACTS, now=FACTS, *overrides):
        return describe_continuation(GOES_ON, before, now, config(*overrides))

    assert said() == [
        "train.validate_every was 1, is 2",
        "the weights will be bit-equal to those of a run that was never interrupted",
    ]
    rounding = "will be those of a run that was never interrupted but for the order of floating-point sums"
    one = FACTS | {"replicas": 1}
    (_, line) = said(FACTS, one)
    assert rounding in line and "and the masks of dropout" in line and "(1 devices where there were 2)" in line
    (_, line) = said(FACTS, one, "model.dropout=0")
    assert rounding in line and "dropout" not in line
    (_, line) = said(FACTS, FACTS | {"packages": {"tensorflow": "2.21.0", "keras": "3.15.0"}})
    assert rounding in line and "(tensorflow 2.21.0 where there was 2.20.0)" in line
    gpu = FACTS | {"device_kind": "NVIDIA H100"}
    (_, line) = said(gpu, gpu)
    assert rounding in line and "train.deterministic is false" in line
    assert "bit-equal" in said(gpu, gpu, "train.deterministic=true")[1]
    (_, line) = said(FACTS, gpu, "train.deterministic=true")
    assert "NVIDIA H100 where there was CPU" in line
    assert "is not known" in said(None)[1]
    with pytest.raises(ValueError, match=r"sync_batch_norm: false: .* the run had 2 devices, here are 1; go on with"):
        said(FACTS, one, "train.sync_batch_norm=false")


def test_device_facts(two_replicas):
    facts = device_facts(two_replicas)
    assert facts["replicas"] == 2
    if not tf.config.list_physical_devices("GPU"):
        assert facts["device_kind"] == "CPU"
    assert json.loads(json.dumps(environment([], **facts)))["replicas"] == 2
