"""Pictures that look alike are told from those that do not."""

import io

import numpy as np
import pytest
from PIL import Image

from psanet_tf.inference.look_alikes import look_of, thinned


def _picture(seed, size=(120, 160)):
    """Blobs of some colours."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (5, 7, 3)).astype("uint8")
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def test_copies_are_alike_and_other_pictures_are_not():
    picture = _picture(0)
    look = look_of(picture)
    assert (look.shape, look.dtype) == ((13824,), np.float32)
    assert look @ look == pytest.approx(1, abs=1e-5)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=60)
    noise = np.random.default_rng(1).integers(-6, 7, picture.shape)
    copies = {
        "reduced": np.asarray(Image.fromarray(picture).resize((80, 60))),
        "compressed": np.asarray(Image.open(stream)),
        "brighter": np.clip(picture * 1.04, 0, 255).astype("uint8"),
        "noisy": np.clip(picture + noise, 0, 255).astype("uint8"),
        "moved": np.roll(picture, 3, axis=1),
    }
    for name, copy in copies.items():
        assert look @ look_of(copy) > 0.93, name
    for seed in range(1, 8):
        assert look @ look_of(_picture(seed)) < 0.85
    assert look_of(np.zeros((9, 9, 3), np.uint8)) @ look_of(np.full((9, 9, 3), 255, np.uint8)) == 0


def test_the_product_is_the_mean_overlap_of_the_parts():
    left, right = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    right[:16, :32] = 255  # eight of the 64 parts
    assert look_of(left) @ look_of(right) == pytest.approx(56 / 64, abs=1e-6)


def test_the_best_of_those_alike_are_taken():
    pictures = [_picture(0), _picture(1), _picture(0), _picture(2), _picture(1), _picture(0), _picture(3)]
    looks = [look_of(picture) for picture in pictures]
    assert thinned(looks, 10, 0.9) == [(0, 2), (1, 1), (3, 0), (6, 0)]
    asked_for = iter(looks)
    assert thinned(asked_for, 3, 0.9) == [(0, 1), (1, 0), (3, 0)]
    assert len(list(asked_for)) == 3
    assert [index for index, _ in thinned(looks, 10, 1.0)] == list(range(7))
    assert thinned([], 10, 0.9) == []
