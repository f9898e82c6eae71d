"""Labelling files: what is found, what is written, images of every kind, and broken ones."""

import numpy as np
import pytest
from PIL import Image

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.inference.image_files import label_images
from psanet_tf.inference.inputs import InputFile, find_inputs

INFO = DatasetInfo("three", ("dark", "middle", "bright"), np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]]))


class Brightness:
    """Labels by brightness, so that what was read can be told from the labels."""

    def labels(self, image):
        assert image.dtype == np.uint8
        return (image.astype(int).sum(-1) // 256).clip(0, 2).astype(np.uint8)


def _labels(out, name):
    return np.asarray(Image.open(out / "labels" / f"{name}.png"))


def _save(path, array, **arguments):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **arguments)
    return path


def test_images_of_every_kind(tmp_path):
    grey = np.repeat(np.array([[0, 100, 250]], "uint8"), 2, axis=0)
    expected = np.array([[0, 1, 2]] * 2)
    rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    rgba[:, 0] = (0, 0, 0, 0)  # transparent black: white on paper
    turned = Image.fromarray(np.dstack([grey] * 3)).transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    _save(tmp_path / "grey.png", grey)
    _save(tmp_path / "rgba.png", rgba)
    _save(tmp_path / "deep.png", grey.astype("uint16") * 257)
    _save(tmp_path / "one.png", np.full((1, 1, 3), 120, "uint8"))
    _save(tmp_path / "large.png", np.zeros((300, 2, 3), "uint8"))
    out = tmp_path / "out"
    assert label_images([Brightness()], find_inputs([tmp_path], tmp_path / "out").files, INFO, out) == {}
    for name in ("grey", "deep", "turned"):
        np.testing.assert_array_equal(_labels(out, name), expected)
    np.testing.assert_array_equal(_labels(out, "rgba"), [[2, 1, 2]] * 2)
    np.testing.assert_array_equal(_labels(out, "one"), [[1]])
    for name in ("one", "large", "grey"):
        assert Image.open(out / "overlays" / f"{name}.png").size[::-1] == _labels(out, name).shape
        assert (out / "side_by_side" / f"{name}.png").is_file()


def test_a_broken_image_among_a_hundred(tmp_path):
    for index in range(100):
        _save(tmp_path / "in" / f"{index:03}.png", np.full((3, 3, 3), index, "uint8"))
    broken = tmp_path / "in" / "042.png"
    broken.write_bytes(broken.read_bytes()[:40])
    failures = label_images(
        [Brightness()], find_inputs([tmp_path / "in"], tmp_path / "out").files, INFO, tmp_path / "out"
    )
    assert list(failures) == [broken]
    assert "042.png" in failures[broken]
    names = {file.name for file in (tmp_path / "out" / "labels").iterdir()}
    assert names == {f"{index:03}.png" for index in range(100)} - {"042.png"}


def test_an_error_of_the_network_is_no_broken_image(tmp_path):
    class Failing:
        def labels(self, image):
            raise ValueError("predict must give other logits")

    path = _save(tmp_path / "a.png", np.zeros((3, 3, 3), "uint8"))
    with pytest.raises(ValueError, match="other logits"):
        label_images([Failing()], [InputFile(path, "a")], INFO, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Sure(Brightness):
    """Surer the brighter."""

    def __call__(self, image):
        second = 0.5 * (1 - image[..., 0] / 255)
        probabilities = np.zeros((*image.shape[:2], 3), np.float32)
        first = self.labels(image)
        np.put_along_axis(probabilities, first[..., None], (1 - second)[..., None], -1)
        np.put_along_axis(probabilities, (first[..., None] + 1) % 3, second[..., None], -1)
        return probabilities

    def labels_and_confidence(self, image):
        return self.labels(image), self(image).max(-1)


def test_how_sure_each_pixel_is(tmp_path):
    grey = np.repeat(np.array([[0, 102, 255]], "uint8"), 2, axis=0)
    _save(tmp_path / "in" / "a.png", grey)
    inputs = find_inputs([tmp_path / "in"], tmp_path / "out").files
    for probabilities in (False, True):
        out = tmp_path / f"out_{probabilities}"
        assert label_images([Sure()], inputs, INFO, out, None, True, probabilities) == {}
        with Image.open(out / "confidence" / "a.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), [[128, 178, 255]] * 2)
    archive = np.load(out / "probabilities" / "a.npz")
    assert archive["classes"].tolist() == ["dark", "middle", "bright"]
    np.testing.assert_allclose(archive["probabilities"][0], [[0.5, 0.5, 0], [0, 0.7, 0.3], [0, 0, 1]], atol=1e-3)
    # What an earlier call has written is not labelled.
    with pytest.raises(ValueError, match="holds only results"):
        find_inputs([out / "confidence"], out)
    with pytest.raises(ValueError, match="gives labels only: for confidence and probabilities load the weights"):
        label_images([Sure(), Brightness()], inputs, INFO, tmp_path / "none", None, True)
    assert not (tmp_path / "none").exists()
