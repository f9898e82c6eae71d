"""Images that are no photographs, from files to a served model, through the command line."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from stored_images import npy, png, tiff, write_dataset
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf import Segmenter
from psanet_tf.config import load_config
from psanet_tf.data.image_format import ImageFormat
from psanet_tf.evaluation.run import run_evaluation
from psanet_tf.serving.client.client import Client
from psanet_tf.serving.server.server import Server

pytestmark = pytest.mark.extended

CONFIG = """
data:
  dataset: custom
  root: {root}
  class_names: names.txt
  channels: {channels}
  dtype: {dtype}
  display: {{bands: {bands}}}
  crop_size: [33, 33]
  augmentation: {{rotate_probability: 0, blur_probability: 0}}
model: {{blocks: [1, 1, 1, 1], width: 4, use_psa: {whole}, psa_type: collect}}
train: {{epochs: 1, batch_size: 3, learning_rate: 0.05, tensorboard: {whole}, validate_every: {every}}}
evaluate: {{flip: false}}
"""


def run(*arguments):
    _register()
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result


def train(folder, channels, dtype, suffix, encode, bands, whole=False):
    """(format of the images, folder with data, config.yaml and run, images and labels of the validation split)

    What has nothing to do with the images is left out, but for `whole`.
    """
    written = write_dataset(folder / "data", channels, dtype, suffix, encode)
    values = {"root": folder / "data", "channels": channels, "dtype": dtype, "bands": bands}
    values |= {"whole": str(whole).lower(), "every": 1 if whole else 2}
    (folder / "config.yaml").write_text(CONFIG.format(**values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("psanet_tf.data.plain_copies.cache_folder", lambda: folder / "cache")
        run("train", "--config", folder / "config.yaml", "--run-dir", folder / "run")
    return ImageFormat(channels, dtype, bands=tuple(bands)), folder, written["val"]


@pytest.fixture(scope="module")
def grey_of_16_bits(tmp_path_factory):
    return train(tmp_path_factory.mktemp("grey"), 1, "uint16", ".png", png, [1])


@pytest.fixture(scope="module")
def four_channels(tmp_path_factory):
    return train(tmp_path_factory.mktemp("four"), 4, "uint8", ".png", png, [4, 1, 2])


@pytest.fixture(scope="module")
def twelve_bands(tmp_path_factory):
    encode = functools.partial(tiff, compression="lzw")
    return train(tmp_path_factory.mktemp("twelve"), 12, "uint16", ".tif", encode, [4, 3, 2], whole=True)


@pytest.mark.parametrize("case", ["grey_of_16_bits", "four_channels", "twelve_bands"])
def test_end_to_end(case, request, monkeypatch):
    images, folder, written = request.getfixturevalue(case)
    monkeypatch.chdir(folder)
    data = load_config(folder / "run" / "config.yaml").data
    known = ImageFormat(images.channels, images.dtype, data.mean, data.std, images.bands)
    run("evaluate", "--weights", "run")
    assert json.loads((folder / "run/evaluation/scores.json").read_text())["images"] == 2
    assert (folder / "run/evaluation/report.html").is_file()
    warm_up = "--warm-up" if images.channels == 12 else "--no-warm-up"
    assert "loaded back and compared" in run("export", "--weights", "run", "--out", "model", warm_up).output
    run("predict", "data/images/val", "--weights", "model", "--out", "predicted")
    for name, (image, _) in written.items():
        evaluated, labels = (
            np.asarray(Image.open(folder / f"{path}/labels/{name}.png")) for path in ("run/evaluation", "predicted")
        )
        assert (evaluated == labels).mean() > 0.99
        side = np.asarray(Image.open(folder / f"predicted/side_by_side/{name}.png"))
        shown = known.picture(image)
        assert any(np.array_equal(side[y : y + 40, 8:56], shown) for y in range(side.shape[0] - 40))
    metadata = json.loads((folder / "model/1/assets/metadata.json").read_text())
    assert ImageFormat.from_dict(metadata) == known


def test_what_is_known_of_a_run(twelve_bands, monkeypatch):
    images, folder, written = twelve_bands
    monkeypatch.chdir(folder)
    # The numbers that the check computes are those that the run was trained with.
    checked = run("data", "check", "--config", "config.yaml", "--statistics")
    assert "nothing is wrong" in checked.output
    data = load_config(folder / "run" / "config.yaml").data
    assert f"  mean: {list(data.mean)}\n  std: {list(data.std)}" in checked.output
    segmenter = Segmenter.load(folder / "run")
    assert segmenter.images == ImageFormat(12, "uint16", data.mean, data.std, images.bands)
    assert segmenter.model.input_shape == (None, 33, 33, 12)
    run("predict", "data/images/val", "--weights", "run", "--out", "by_run")
    for name, (image, _) in written.items():
        labels = np.asarray(Image.open(folder / f"by_run/labels/{name}.png"))
        assert np.array_equal(segmenter.labels(image), labels)
        assert segmenter.overlay(image).shape == (40, 48, 3)


def test_a_served_model(twelve_bands, monkeypatch):
    _, folder, written = twelve_bands
    monkeypatch.chdir(folder)
    if not (folder / "model").exists():
        run("export", "--weights", "run", "--out", "model")
    run("attention", "--image", "data/images/val/field_0.tif", "--weights", "model", "--point", "5,6")
    assert (folder / "attention/field_0_attention.html").is_file()
    image = written["field_0"][0]
    crop, segmenter = image[None, :33, :33], Segmenter.load(folder / "run")
    expected = np.argmax(segmenter.model.inference()(segmenter.images.normalize(crop)), axis=-1)
    with Server(folder / "model", rest_port=0, grpc_port=0) as server:
        for url in (f"grpc://127.0.0.1:{server.grpc_port}/model", f"http://127.0.0.1:{server.rest_port}/model"):
            with Client(url) as client:
                labels = client.labels(image)
                assert np.array_equal(client.labels(folder / "data/images/val/field_0.tif"), labels)
                assert np.array_equal(client.labels(npy(image)), labels)
                assert (client.label_images(crop)[0] == expected).mean() > 0.99
                with pytest.raises(ValueError, match=r"image must be uint16 \[H, W, 12\], got uint8 \[4, 4, 3\]"):
                    client.labels(np.zeros((4, 4, 3), np.uint8))
                with monkeypatch.context() as patch:
                    # Too large for one request: by tiles of 30 pixels.
                    patch.setattr("psanet_tf.serving.client.client._MAX_UPLOAD_BYTES", 30 * 30 * image[0, 0].nbytes)
                    assert client.labels(image).shape == labels.shape
    with pytest.raises(
        ValueError, match="model was trained on images of 12 channels of uint16, those of .* are of 2 cha"
    ):
        run_evaluation("model", "other", "config.yaml", ["data.channels=2", "data.display.bands=[1]"])
    model = tf.saved_model.load(str(folder / "model" / "1"))
    spec = model.signatures["serving_default"].structured_input_signature[1]["images"]
    assert (spec.dtype, spec.shape[1:]) == (tf.uint16, (33, 33, 12))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes\[0\] must be an .npy file of uint16"):
        model.signatures["predict_bytes"](image_bytes=tf.constant([png(image[..., :3])]))


def test_the_run_goes_on_and_refuses_other_statistics(four_channels):
    _, folder, _ = four_channels
    result = run("train", "--config", folder / "config.yaml", "--run-dir", folder / "run")
    assert "is finished, 1 of 1 epochs" in result.output
    with pytest.raises(ValueError, match=r"was trained with data.mean=.*not with data.mean=\[1.0, 1.0, 1.0, 1.0\]"):
        Segmenter.load(folder / "run", overrides=["data.mean=[1.,1.,1.,1.]", "data.std=[1.,1.,1.,1.]"])
    with pytest.raises(ValueError, match=r"trained on images of 4 channels of uint8, not of 3 channels of uint8"):
        Segmenter.load(folder / "run", overrides=["data.channels=3", "data.mean=null", "data.std=null",
                                                  "data.display.bands=[1]"])  # fmt: skip
    other = Segmenter.load(folder / "run", overrides=["data.display.bands=[2]"])
    assert other.images.bands == (2,)
