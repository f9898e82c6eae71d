"""Three steps of the original's training script: losses, learning rates and weights."""

import numpy as np
import pytest
import tensorflow as tf
from procedural_weights import state_dict

from psanet_tf import PSANet, load_semseg_weights
from psanet_tf.config import TrainSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.training.prebuilding import build_for_fit
from psanet_tf.training.recipe import build_losses, build_optimizer
from psanet_tf.weights.semseg import semseg_state_dict

pytestmark = pytest.mark.optimized_graphs

LOSS_LIMITS = (1e-6, 2e-4, 1e-3)
WEIGHT_LIMITS = (1e-4, 2e-3, 5e-3)


def _info(num_classes):
    names = tuple(f"class {index}" for index in range(num_classes))
    return DatasetInfo("golden", names, np.zeros((num_classes, 3), np.uint8))


@pytest.fixture(scope="module")
def trained(golden):
    """The log and the weights after each step."""
    arrays, meta = golden("psanet50_97x97")
    recipe = meta["train"]
    model = PSANet(
        meta["classes"],
        depth=meta["layers"],
        input_shape=(meta["H"], meta["W"], 3),
        dropout=meta["dropout"],
        mask_size=(meta["mask_h"], meta["mask_w"]),
    )
    load_semseg_weights(model, state_dict(meta["state_dict_shapes"], meta["weights_seed"]))
    section = TrainSection(
        learning_rate=recipe["base_lr"],
        poly_power=recipe["power"],
        momentum=recipe["momentum"],
        weight_decay=recipe["weight_decay"],
        aux_weight=recipe["aux_weight"],
    )
    optimizer = build_optimizer(section, recipe["max_iter"])
    model.compile(optimizer, **build_losses(section, _info(meta["classes"])), auto_scale_loss=False)
    # As `build_job` does; otherwise `fit` traces the step twice, the first time to make what is missing.
    optimizer.build(model.trainable_variables)
    build_for_fit(model)
    log, weights = [], []
    for step in range(3):
        rate = float(optimizer.learning_rate)
        labels = arrays[f"train/label{step}"]
        dataset = tf.data.Dataset.from_tensors((arrays[f"train/x{step}"], {"logits": labels, "aux_logits": labels}))
        history = model.fit(dataset, verbose=0).history
        log.append({key: value[0] for key, value in history.items()} | {"lr": rate})
        weights.append(semseg_state_dict(model))
    return log, weights


@pytest.mark.parametrize("step", range(3))
def test_losses_and_rates_are_the_originals(golden, trained, step):
    _, meta = golden("psanet50_97x97")
    expected, got = meta["train"]["log"][step], trained[0][step]
    assert got["logits_loss"] == pytest.approx(expected["main"], rel=LOSS_LIMITS[step])
    assert got["aux_logits_loss"] == pytest.approx(expected["aux"], rel=LOSS_LIMITS[step])
    assert got["loss"] == pytest.approx(expected["loss"], rel=LOSS_LIMITS[step])
    assert got["lr"] == pytest.approx(expected["lr_backbone"], rel=1e-6)


@pytest.mark.parametrize("step", range(3))
def test_weights_are_the_originals(golden, trained, step):
    arrays, _ = golden("psanet50_97x97")
    prefix = f"train/after{step + 1}/"
    names = [name for name in arrays.files if name.startswith(prefix)]
    assert names
    for name in names:
        expected = arrays[name]
        got = trained[1][step][name.removeprefix(prefix)]
        if got.size > 70_000:
            got = got.reshape(got.shape[0], -1)[::8]
        error = np.max(np.abs(got - expected)) / np.max(np.abs(expected))
        assert error <= WEIGHT_LIMITS[step], f"{name}: {error:.2g}"
