"""The images that exports in integers are calibrated with."""

import numpy as np
import pytest
from PIL import Image

from psanet_tf.config import load_config
from psanet_tf.data.image_format import PHOTOGRAPHS
from psanet_tf.export.calibration import IMAGES, calibration_images
from psanet_tf.export.verification import made_image
from psanet_tf.inference.segmenter import Segmenter


@pytest.fixture(scope="module")
def segmenter(evaluated_runs):
    return Segmenter.load(evaluated_runs / "fcn")  # base_size 56


def test_they_are_seen_as_in_the_evaluation(segmenter, tmp_path):
    files = []
    for index, size in enumerate([(56, 42), (112, 84), (28, 56)]):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(made_image(size, seed=index)).save(files[-1])
    at_its_size, halved, flat = calibration_images(segmenter, (41, 41), files=files)
    # The middle of an image of that size; what is larger is resized; what is smaller is padded with the mean colour.
    np.testing.assert_array_equal(at_its_size, made_image((56, 42))[7:48, :41])
    assert halved.shape == flat.shape == (41, 41, 3)
    assert halved.dtype == np.uint8 and halved.std() > 10
    np.testing.assert_array_equal(flat[:6], np.broadcast_to(np.rint(PHOTOGRAPHS.fill), (6, 41, 3)))
    np.testing.assert_array_equal(flat[6:34], made_image((28, 56), seed=2)[:, 7:48])
    assert [image.shape for image in calibration_images(segmenter, None, files=files)] == [
        (56, 42, 3),
        (56, 42, 3),
        (28, 56, 3),
    ]


def test_by_default_they_are_training_images_evenly_spread(segmenter, evaluated_runs, tmp_path):
    source = evaluated_runs / "fcn" / "config.yaml"
    config = load_config(source, ["data.train_split=validation"])
    assert len(calibration_images(segmenter, (41, 41), config)) == 6
    files = [tmp_path / f"{index}.png" for index in range(IMAGES + 8)]
    for index, file in enumerate(files):
        Image.fromarray(np.full((41, 41, 3), index, np.uint8)).save(file)
    chosen = [int(image[20, 20, 0]) for image in calibration_images(segmenter, (41, 41), files=files)]
    assert len(chosen) == IMAGES and chosen == sorted(set(chosen)) and chosen[-1] >= IMAGES + 6


def test_without_any_it_is_said_how_to_give_some(segmenter, evaluated_runs):
    with pytest.raises(ValueError, match="nothing says which the network was trained on: --calibration FOLDER names"):
        calibration_images(segmenter, (41, 41))
    config = load_config(evaluated_runs / "fcn" / "config.yaml", ["data.root=nowhere"])
    with pytest.raises(ValueError, match=r"needs the training images \(data.root: there is no folder nowhere.*--calib"):
        calibration_images(segmenter, (41, 41), config)
