"""Crops that are not of the form 8n + 1, from training to labels, in both variants."""

import numpy as np
import pytest

from psanet_tf import SlidingWindow, attention_maps
from psanet_tf.training.checkpoints import load_trained
from psanet_tf.training.trainer import train


@pytest.mark.parametrize("variant", ["semseg", "mmseg"])
def test_even_crops_train_and_label(config, tmp_path, variant):
    options = [f"model.variant={variant}", "data.crop_size=[40, 48]", "train.epochs=1"]
    options += ["model.mask_size=[4, 6]"] if variant == "mmseg" else []
    result = train(config(*options), tmp_path)
    assert np.isfinite(result.position.best_miou)
    model = load_trained(result.run.last_file).model
    assert model.output["logits"].shape[1:3] == (40, 48)
    picture = np.random.default_rng(0).integers(0, 256, (50, 61, 3), "uint8")
    window = SlidingWindow(model.inference(), model.num_classes, (40, 48), base_size=61)
    probabilities = window(picture)
    assert probabilities.shape == (50, 61, model.num_classes)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-4)
    maps = attention_maps(model, picture, [(3, 4), (60, 49)])
    # 5 x 6 features, shrunk with aligned corners or halved with half-pixel centres.
    size = (3, 3) if variant == "semseg" else (2, 3)
    assert maps.collect.shape == maps.distribute.shape == (2, *size)
    np.testing.assert_allclose(maps.collect.sum(axis=(1, 2)), 1, atol=1e-4)
