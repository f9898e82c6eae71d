"""MMSegmentation's prediction: its own numbers, and what follows from its definition."""

import numpy as np
import pytest
import tensorflow as tf
from procedural_weights import state_dict

from psanet_tf import PSANet, load_mmseg_weights
from psanet_tf.inference.mmseg_protocol import MMSegProtocol, fitted


@pytest.mark.parametrize("name", ["whole", "slide"])
def test_logits_and_labels_are_mmsegmentations(golden, name, monkeypatch):
    arrays, meta = golden(f"mmseg/mmseg_predict_{name}")
    model = PSANet(
        meta["classes"],
        depth=meta["depth"],
        input_shape=(None, None, 3),
        variant="mmseg",
        mask_size=meta["mask_size"],
        align_corners=meta["align_corners"],
    )
    load_mmseg_weights(model, state_dict(meta["state_dict_shapes"], meta["weights_seed"]))
    crop_size, stride = meta["slide"] or (None, None)
    inference = model.inference()
    computed = {}

    def network(images):
        """For labels and logits of one image the network sees the same crops: it is asked once."""
        key = images.shape, images.numpy().tobytes()
        if key not in computed:
            computed[key] = inference(images, training=False)
        return computed[key]

    protocol = MMSegProtocol(
        network,
        meta["classes"],
        meta["scale"],
        meta["align_corners"],
        crop_size,
        stride,
    )
    image, step = arrays["image"], meta["logits_step"]
    assert np.abs(fitted(image, meta["scale"]).numpy() - arrays["resized"]).max() <= 1
    labels, logits = protocol.labels(image), protocol.logits(image).numpy()
    largest = np.abs(arrays["logits"]).max()
    assert np.abs(logits[::step, ::step] - arrays["logits"]).max() <= 1e-2 * largest
    assert (labels == arrays["label"]).mean() >= 0.99
    # Fed with the very same resized image.
    monkeypatch.setattr("psanet_tf.inference.mmseg_protocol.fitted", lambda *_: tf.cast(arrays["resized"], tf.float32))
    logits = protocol.logits(image).numpy()
    assert np.abs(logits[::step, ::step] - arrays["logits"]).max() <= 2e-5 * largest
    assert np.array_equal(protocol.labels(image), arrays["label"])
