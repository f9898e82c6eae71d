"""A calibration is kept with the weights, and leaves them what they are."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from psanet_tf import PSANet
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.reliability import Reliability
from psanet_tf.weights.calibration import (
    Calibration,
    calibration_file,
    store_calibration,
    stored_calibration,
    tempered,
)
from psanet_tf.weights.checkpoints import load_trained
from psanet_tf.weights.conversion import convert_weights
from psanet_tf.weights.description import Description, describe, description_of, temperature_of
from psanet_tf.weights.files import check_keras_file, weights_identity
from psanet_tf.weights.semseg import semseg_state_dict

FOUND = Reliability.measured(np.array([0.3, 0.9]), np.array([True, False]))
CALIBRATION = Calibration(1.7, "validation", 3, 2, (0.9, 0.8), FOUND, FOUND, 0.01)


@pytest.fixture
def description():
    info = dataset_info("scenes")
    return Description(info, EvaluateSection(base_size=48), "somewhere")


def test_a_keras_file_carries_it_and_stays_the_same_otherwise(tmp_path, description):
    model = PSANet(description.info.num_classes, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 33, 3), use_psa=False)
    describe(model, description)
    path = tmp_path / "net.keras"
    model.save(path)
    shutil.copy(path, tmp_path / "before.keras")
    identity = weights_identity(path)
    for temperature in (3.0, 1.7):
        values = {**CALIBRATION.to_dict(), "temperature": temperature}
        assert store_calibration(path, Calibration.from_dict(values), {}) == path
    check_keras_file(path)
    with zipfile.ZipFile(tmp_path / "before.keras") as before, zipfile.ZipFile(path) as after:
        assert after.namelist() == before.namelist()
        changed = [name for name in before.namelist() if before.read(name) != after.read(name)]
        assert changed == ["config.json"]
        assert [entry.compress_type for entry in after.infolist()] == [e.compress_type for e in before.infolist()]
    # Training that goes on knows its best weights by this.
    assert weights_identity(path) == identity
    found = description_of(load_trained(path).model)
    assert found.to_dict() == {**description.to_dict(), "calibration": CALIBRATION.to_dict()}
    assert found.temperature == 1.7
    # Without a calibration nothing is said of one, and nothing divided.
    logits = np.ones(2, np.float32)
    assert tempered(logits, 1.0) is logits
    assert "calibration" not in description.to_dict()
    assert description.temperature == temperature_of(model) == 1.0
    with pytest.raises(ValueError, match="not the calibration of a network: 'nll'"):
        Description.from_dict(
            {**found.to_dict(), "calibration": {"before": FOUND.to_lists(), "after": FOUND.to_lists()}}
        )
    with pytest.raises(ValueError, match=r"temperature must be a number above 0, got 0"):
        Calibration(0.0, "validation", 3, 2, (0.9, 0.8), FOUND, FOUND)


def test_other_files_get_a_file_beside_them(tmp_path, capsys):
    from safetensors.numpy import save_file

    network = PSANet(6, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 33, 3), use_psa=False)
    path = tmp_path / "net.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in semseg_state_dict(network).items()}, path)
    before = path.read_bytes()
    beside = store_calibration(path, CALIBRATION, {})
    assert beside == calibration_file(path) == tmp_path / "net.safetensors.calibration.json"
    assert path.read_bytes() == before
    assert stored_calibration(path).to_dict() == CALIBRATION.to_dict()
    # Nothing names its classes, or its scale: that is said as before.
    segmenter = Segmenter.load(path)
    assert segmenter.temperature == 1.7
    assert (segmenter.classes[3], segmenter.base_size) == ("class 3", 512)
    said = capsys.readouterr().err
    assert "nothing names the classes of" in said
    assert "nothing tells at which scale" in said
    # One file of both carries it along.
    convert_weights(path, tmp_path / "converted.keras")
    with zipfile.ZipFile(tmp_path / "converted.keras") as archive:
        description = json.loads(archive.read("config.json"))["config"]["description"]
    assert description["calibration"] == CALIBRATION.to_dict()
    assert stored_calibration(tmp_path / "converted.keras") is None
    path.write_bytes(before + b"\0")
    assert stored_calibration(path) is None
    assert "was fitted to other weights than" in capsys.readouterr().err
    values = json.loads(beside.read_text())
    for damaged in ("{", "[]", json.dumps({**values, "calibration": {"temperature": 2}})):
        beside.write_text(damaged)
        with pytest.raises(ValueError, match=r"calibration.json is damaged .* run psanet calibrate again"):
            stored_calibration(path)
