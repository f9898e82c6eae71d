"""Options of the recipe, through `train` as a user runs it."""

import numpy as np
import pytest

from psanet_tf.config import Config, TrainSection
from psanet_tf.models import semseg_state_dict
from psanet_tf.models.weights_files import weights_identity
from psanet_tf.training.checkpoints import load_trained
from psanet_tf.training.state import Position, restore_state
from psanet_tf.training.strategy import build_strategy
from psanet_tf.training.trainer import build_job, train

FCN = ("model.use_psa=false",)


def test_average_coarse_labels_and_half_precision_end_in_a_plain_checkpoint(config, tmp_path):
    options = (
        "train.ema_decay=0.5",
        "train.zoom_factor=2",
        "train.precision=mixed_bfloat16",
        "train.optimizer=adam",
        "train.learning_rate=0.001",
    )
    config = config(*FCN, *options, "train.validate_every=2")
    result = train(config, tmp_path)
    assert result.position.best_epoch in (2, 3)
    model = load_trained(result.run.last_file).model
    assert model.get_config()["dtype"] == "float32"
    assert model.output["logits"].shape[1:3] == (33, 33)
    # The checkpoint holds the averages, the state holds both.
    job = build_job(config, build_strategy(config.train))
    assert restore_state(result.run.state_file, job.model)[0].epoch == 3
    assert job.model.output["logits"].shape[1:3] == (9, 9)
    moved = 0
    pairs = zip(job.model.trainable_variables, job.model.optimizer.averages, model.trainable_variables, strict=True)
    for raw, average, saved in pairs:
        np.testing.assert_array_equal(saved.numpy(), average.numpy())
        moved += not np.array_equal(saved.numpy(), raw.numpy())
    assert moved > 10


def test_frozen_batch_norm_keeps_what_init_had(config, tmp_path):
    first = train(config(*FCN, "train.epochs=1"), tmp_path / "first").run
    frozen = train(
        config(*FCN, "train.epochs=1", f"train.init={first.path}", "train.freeze_batch_norm=true", "train.seed=1"),
        tmp_path / "second",
    ).run
    before, after = (semseg_state_dict(load_trained(run.last_file).model) for run in (first, frozen))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    norms = {name.rpartition(".")[0] for name in before if name.endswith("running_mean")}
    assert not {name for name in changed if name.rpartition(".")[0] in norms}
    assert {"layer1.0.conv1.weight", "cls.4.weight"} <= changed


def test_float16_trains_with_a_loss_scale_and_no_weight_is_no_auxiliary_head(config, tmp_path):
    config = config(*FCN, "train.epochs=1", "train.precision=mixed_float16", "train.clip_norm=1", "train.aux_weight=0")
    job = build_job(config, build_strategy(config.train))
    before = {variable.path: variable.numpy() for variable in job.model.variables}
    result = train(config, tmp_path)
    assert result.position == Position(1, 0, result.position.best_miou, 1, weights_identity(result.run.best_file))
    restore_state(result.run.state_file, job.model)
    assert job.model.optimizer.iterations.numpy() == 4
    assert job.model.optimizer.dropped_steps.numpy() == 0
    moved = {path for path, old in before.items() if not np.array_equal(old, _variable(job.model, path).numpy())}
    assert moved == {path for path in before if not path.startswith("aux_")}
    assert all(np.isfinite(weight).all() for weight in load_trained(tmp_path).model.get_weights())


def _variable(model, path):
    return next(variable for variable in model.variables if variable.path == path)


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
