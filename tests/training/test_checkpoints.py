"""Reading trained networks back."""

import json

import numpy as np
import pytest
import safetensors.numpy
from pytorch_writer import save_state_dict

from psanet_tf import PSANet
from psanet_tf.data.catalog import dataset_info
from psanet_tf.keras_api import keras
from psanet_tf.training.checkpoints import plain_copy, save_checkpoint
from psanet_tf.training.run_folder import TrainingFolder
from psanet_tf.weights.checkpoints import load_trained
from psanet_tf.weights.semseg import semseg_state_dict

SCENES = dataset_info("scenes")


def save_safetensors(path, state):
    safetensors.numpy.save_file(state, path)


@pytest.fixture(scope="module")
def model():
    return PSANet(SCENES.num_classes, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 33, 3), use_psa=False)


@pytest.mark.parametrize(("name", "save"), [("x.pth", save_state_dict), ("x.safetensors", save_safetensors)])
def test_public_files_take_the_classes_of_a_configuration(model, config_file, tmp_path, name, save):
    path = tmp_path / name
    save(path, semseg_state_dict(model))
    fcn = tmp_path / "fcn.yaml"
    fcn.write_text(config_file.read_text().replace("width: 4", "width: 4\n  use_psa: false"))
    trained = load_trained(path, fcn)
    np.testing.assert_array_equal(trained.model.get_weights()[0], model.get_weights()[0])
    assert trained.info.num_classes == SCENES.num_classes


def test_a_file_alone_has_no_facts_and_a_configuration_gives_them(model, config_file, tmp_path):
    save_checkpoint(model, tmp_path / "x.keras")
    trained = load_trained(tmp_path / "x.keras")
    assert (trained.config, trained.info) == (None, None)
    assert load_trained(tmp_path / "x.keras", config_file).info.name == "scenes"


def test_a_plain_copy_computes_in_float32_at_full_size(model):
    coarse = PSANet.from_config(model.get_config() | {"zoom_factor": 1, "dtype": "mixed_bfloat16"})
    copy = plain_copy(coarse)
    assert copy.get_config() == model.get_config() | {"dtype": "float32"}
    copy.set_weights(coarse.get_weights())


def test_files_that_are_no_trained_networks(model, config_file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no run folder or checkpoint .*nothing"):
        load_trained(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"holds neither best.keras nor last.keras"):
        load_trained(tmp_path)
    TrainingFolder(tmp_path).config_file.write_text(config_file.read_text())
    with pytest.raises(FileNotFoundError, match=r"its run has not come to the end of the first epoch"):
        load_trained(tmp_path)
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"exported holds neither .*: it is an exported SavedModel"):
        load_trained(tmp_path / "exported")
    TrainingFolder(tmp_path).config_file.unlink()
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save(tmp_path / "dense.keras")
    with pytest.raises(ValueError, match=r"dense.keras holds a Sequential, not a PSANet"):
        load_trained(tmp_path / "dense.keras")
    save_checkpoint(model, tmp_path / "best.keras")
    (tmp_path / "cut.keras").write_bytes((tmp_path / "best.keras").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cut.keras is not a .keras file, or is cut short"):
        load_trained(tmp_path / "cut.keras")
    run = TrainingFolder(tmp_path)
    run.config_file.write_text(config_file.read_text())
    run.dataset_file.write_text(json.dumps(dataset_info("voc2012").to_dict()))
    with pytest.raises(ValueError, match=r"has 10 classes, but the dataset 'voc2012' has 21"):
        load_trained(tmp_path)
