"""Files of weights told apart, and damage found, without building a model."""

import zipfile

import numpy as np
import pytest

from psanet_tf import PSANet
from psanet_tf.weights.files import check_keras_file, weights_identity


@pytest.fixture(scope="module")
def model():
    return PSANet(3, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 33, 3), use_psa=False)


def test_equal_weights_have_one_identity_whenever_and_wherever_they_were_written(model, tmp_path):
    model.save(tmp_path / "a.keras")
    (tmp_path / "run").mkdir()
    model.save(tmp_path / "run" / "b.keras")
    # As if written at another time.
    with zipfile.ZipFile(tmp_path / "a.keras") as source, zipfile.ZipFile(tmp_path / "c.keras", "w") as target:
        for name in reversed(source.namelist()):
            target.writestr(name, b'{"date_saved": "1999"}' if name == "metadata.json" else source.read(name))
    one, *others = (weights_identity(path) for path in sorted(tmp_path.rglob("*.keras")))
    assert len(one) == 64
    assert others == [one, one]


def test_one_changed_weight_is_another_identity(model, tmp_path):
    model.save(tmp_path / "a.keras")
    kernel = model.trainable_variables[0]
    value = kernel.numpy()
    value.flat[0] = np.nextafter(value.flat[0], np.float32(np.inf))
    before = kernel.numpy()
    kernel.assign(value)
    model.save(tmp_path / "b.keras")
    kernel.assign(before)
    assert weights_identity(tmp_path / "a.keras") != weights_identity(tmp_path / "b.keras")


def test_other_files_are_told_apart_by_their_bytes(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"one")
    (tmp_path / "b.pth").write_bytes(b"two")
    # The digest of the three bytes, from another implementation.
    assert weights_identity(tmp_path / "a.pth") == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert weights_identity(tmp_path / "b.pth") != weights_identity(tmp_path / "a.pth")


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_one_wrong_byte_and_a_missing_end_are_found(model, tmp_path, place):
    path = tmp_path / "a.keras"
    model.save(path)
    check_keras_file(path)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(place * len(whole))] ^= 1
    path.write_bytes(damaged)
    for reader in (check_keras_file, weights_identity):
        with pytest.raises(ValueError, match=r"a.keras is (damaged|not a .keras file)"):
            reader(path)
    path.write_bytes(whole[: int(place * len(whole))])
    with pytest.raises(ValueError, match=r"a.keras is not a .keras file, or is cut short"):
        check_keras_file(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing.keras"):
        check_keras_file(tmp_path / "nothing.keras")
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("photo.jpg", b"")
    with pytest.raises(ValueError, match=r"x.keras is not a .keras file: it holds no config.json"):
        weights_identity(tmp_path / "x.keras")
