"""Options of the recipe, through `train` as a user runs it."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import SlidingWindow, attention_maps
from psanet_tf.config import Config, TrainSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.layers import BatchNormalization
from psanet_tf.models import build_model
from psanet_tf.training import fitting
from psanet_tf.training.checkpoints import save_checkpoint
from psanet_tf.training.fitting import distribute_dataset
from psanet_tf.training.job import build_job
from psanet_tf.training.state import Position, restore_state
from psanet_tf.training.strategy import build_strategy
from psanet_tf.training.trainer import train
from psanet_tf.weights.checkpoints import load_trained
from psanet_tf.weights.files import weights_identity


def test_float16_averages_frozen_norms_and_no_auxiliary_loss_on_crops_of_any_size_end_in_a_plain_checkpoint(
    config, tmp_path
):
    options = ["model.variant=mmseg", "data.crop_size=[40, 48]", "model.mask_size=[4, 6]", "train.seed=1"]
    options += ["train.precision=mixed_float16", "train.clip_norm=1", "train.ema_decay=0.5", "train.aux_weight=0"]
    options += ["train.optimizer=adam", "train.learning_rate=0.001", "train.validate_every=2"]
    initial = build_model(config(*options), dataset_info("scenes").num_classes)
    rng = np.random.default_rng(0)
    for variable in initial.variables:
        if variable.path.endswith(("moving_mean", "beta")):
            variable.assign(rng.normal(0, 0.1, variable.shape))
    save_checkpoint(initial, tmp_path / "initial.keras")
    config = config(*options, f"train.init={tmp_path / 'initial.keras'}", "train.freeze_batch_norm=true")
    result = train(config, tmp_path / "run")
    best = result.position.best_epoch
    assert best in (2, 3)
    identity = weights_identity(result.run.best_file)
    assert result.position == Position(3, 0, result.position.best_miou, best, identity)
    assert np.isfinite(result.position.best_miou)
    model = load_trained(result.run.last_file).model
    assert model.get_config()["dtype"] == "float32"
    # The checkpoint holds the averages, the state holds both.
    job = build_job(config, build_strategy(config.train))
    assert restore_state(result.run.state_file, job.model)[0].epoch == 3
    assert job.model.optimizer.iterations.numpy() == 12
    assert job.model.optimizer.dropped_steps.numpy() == 0
    averages = {
        variable.path: average.numpy()
        for variable, average in zip(job.model.trainable_variables, job.model.optimizer.averages, strict=True)
    }
    before, saved, after = values(initial), values(model), values(job.model)
    assert averages
    for path, average in averages.items():
        np.testing.assert_array_equal(saved[path], average)
    assert sum(not np.array_equal(average, after[path]) for path, average in averages.items()) > 10
    norms = {variable.path for layer in norm_layers(model) for variable in layer.variables}
    assert norms
    for trained in (saved, after):
        moved = {path for path in before if not np.array_equal(before[path], trained[path])}
        assert moved == {path for path in before if path not in norms and not path.startswith("aux_")}
        assert all(np.isfinite(value).all() for value in trained.values())
    assert_labels_and_maps(model, (2, 3))


def values(model):
    """{path: value} of weights and statistics; the names of dropout's seeds are another model's others."""
    return {variable.path: variable.numpy() for variable in model.variables if "seed_generator" not in variable.path}


def norm_layers(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, BatchNormalization)]


def assert_labels_and_maps(model, size):
    """A model of crops of 40 x 48 labels images of another size, and shows its attention on maps of `size`."""
    assert model.output["logits"].shape[1:3] == (40, 48)
    image = np.random.default_rng(0).integers(0, 256, (50, 61, 3), "uint8")
    window = SlidingWindow(model.inference(), model.num_classes, (40, 48), base_size=61)
    probabilities = window(image)
    assert probabilities.shape == (50, 61, model.num_classes)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-4)
    maps = attention_maps(model, image, [(3, 4), (60, 49)])
    assert maps.collect.shape == maps.distribute.shape == (2, *size)
    np.testing.assert_allclose(maps.collect.sum(axis=(1, 2)), 1, atol=1e-4)


def test_the_other_variant_on_crops_of_any_size(config):
    """That it trains on them: tests/cli/test_train_cli.py, and without attention test_run.py."""
    # 5 x 6 features are shrunk with aligned corners; those of the mmseg variant are halved with half-pixel centres.
    assert_labels_and_maps(build_model(config("data.crop_size=[40, 48]"), 5), (3, 3))


def test_batches_go_to_a_single_gpu_ahead_of_their_step(config, monkeypatch):
    # Another CPU device stands in for it.
    monkeypatch.setattr(fitting, "devices_of", lambda strategy: ["/device:GPU:0"])
    to_device = tf.data.experimental.prefetch_to_device
    asked = []

    def to_another_cpu(device):
        asked.append(device)
        return to_device("/device:CPU:1")

    monkeypatch.setattr(tf.data.experimental, "prefetch_to_device", to_another_cpu)
    section = config().train

    def make_dataset(num_workers, worker_index):
        image, labels = tf.zeros([2, 9, 9, 3]), tf.zeros([2, 9, 9], tf.uint8)
        return tf.data.Dataset.from_tensors((image, {"logits": labels})).repeat()

    image, labels = next(iter(distribute_dataset(build_strategy(section), section, make_dataset)))
    assert asked == ["/device:GPU:0"]
    assert image.shape == (section.batch_size, 9, 9, 3)
    assert all(tensor.device.endswith("CPU:1") for tensor in (image, labels["logits"]))
    assert labels["logits"].dtype == tf.uint8


def test_frozen_statistics_of_random_weights_are_refused(config):
    with pytest.raises(ValueError, match="freeze_batch_norm needs init"):
        config("train.freeze_batch_norm=true")


def test_arguments_that_the_recipes_optimizer_does_not_take(config):
    with pytest.raises(ValueError, match="optimizer_arguments are for Keras's optimizers"):
        config("train.optimizer_arguments={beta_1: 0.5}")


def test_a_keras_optimizer_needs_a_rate_of_its_own(config, dataset_root):
    data = {"dataset": "scenes", "root": str(dataset_root)}
    with pytest.raises(ValueError, match=r"adam needs a learning_rate of its own, .*: 0.001 is usual"):
        Config.model_validate({"data": data, "train": {"optimizer": "adam"}})
    assert TrainSection(optimizer="adam", learning_rate=1e-3).head_learning_rate_factor == 1
    assert (
        TrainSection(optimizer="adam", learning_rate=1e-3, head_learning_rate_factor=2.0).head_learning_rate_factor == 2
    )
    assert TrainSection().head_learning_rate_factor == 10
