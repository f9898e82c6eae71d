"""The Garden's trainer with a PSANet: the original's numbers, two replicas, resuming, and the way back."""

import numpy as np
import pytest
import tensorflow as tf
from procedural_weights import state_dict

garden = pytest.importorskip("psanet_tf.garden", exc_type=ImportError)

from official.core import base_trainer, exp_factory, train_lib  # noqa: E402

from psanet_tf import load_semseg_weights, semseg_state_dict  # noqa: E402
from psanet_tf.garden.task import PSANetTask  # noqa: E402
from psanet_tf.keras_api import keras  # noqa: E402
from psanet_tf.weights.checkpoints import load_trained  # noqa: E402

# Of the golden README.
LOSS_LIMITS = (1e-6, 2e-4, 1e-3)
WEIGHT_LIMITS = (1e-4, 2e-3, 5e-3)
SMALL = {"blocks": [1, 1, 1, 1], "width": 4, "dropout": 0.0}


def trainer_of(config, strategy, dataset, prepare=lambda model: None):
    task = PSANetTask(config.task)
    with strategy.scope():
        model = task.build_model()
        prepare(model)
        optimizer = task.create_optimizer(config.trainer.optimizer_config, config.runtime)
        return base_trainer.Trainer(config, task, model, optimizer, evaluate=False, train_dataset=dataset)


def batch(images, masks):
    masks = np.asarray(masks, np.float32)[..., None]
    return images, {"masks": masks, "valid_masks": masks != 255, "image_info": np.zeros((len(masks), 4, 2), "float32")}


@pytest.mark.optimized_graphs
def test_three_golden_steps(golden):
    arrays, meta = golden("psanet50_97x97")
    recipe = meta["train"]
    config = exp_factory.get_exp_config("psanet_seg_ade20k")
    config.override(
        {
            "task": {
                "dataset": "",
                "losses": {"aux_weight": recipe["aux_weight"]},
                "model": {
                    "num_classes": meta["classes"],
                    "depth": meta["layers"],
                    "input_size": [meta["H"], meta["W"], 3],
                    "dropout": recipe.get("dropout", meta["dropout"]),
                    "mask_size": [meta["mask_h"], meta["mask_w"]],
                },
            },
            "trainer": {
                "optimizer_config": {
                    "optimizer": {
                        "psanet_sgd": {"momentum": recipe["momentum"], "weight_decay": recipe["weight_decay"]}
                    },
                    "learning_rate": {
                        "polynomial": {
                            "initial_learning_rate": recipe["base_lr"],
                            "power": recipe["power"],
                            "decay_steps": recipe["max_iter"],
                        }
                    },
                }
            },
        }
    )
    steps = [batch(arrays[f"train/x{step}"], arrays[f"train/label{step}"]) for step in range(3)]
    dataset = tf.data.Dataset.from_tensors(steps[0])
    for step in steps[1:]:
        dataset = dataset.concatenate(tf.data.Dataset.from_tensors(step))
    start = state_dict(meta["state_dict_shapes"], meta["weights_seed"])
    trainer = trainer_of(
        config, tf.distribute.get_strategy(), dataset, prepare=lambda model: load_semseg_weights(model, start)
    )
    for step, expected in enumerate(recipe["log"]):
        rate = float(trainer.optimizer.learning_rate(trainer.optimizer.iterations))
        assert rate == pytest.approx(expected["lr_backbone"], rel=1e-6)
        logs = trainer.train(tf.constant(1))
        assert float(logs["training_loss"]) == pytest.approx(expected["loss"], rel=LOSS_LIMITS[step])
        state = semseg_state_dict(trainer.model)
        prefix = f"train/after{step + 1}/"
        names = [name for name in arrays.files if name.startswith(prefix)]
        assert names
        for name in names:
            got = state[name.removeprefix(prefix)]
            if got.size > 70_000:
                got = got.reshape(got.shape[0], -1)[::8]
            error = np.max(np.abs(got - arrays[name])) / np.max(np.abs(arrays[name]))
            assert error <= WEIGHT_LIMITS[step], f"{name}: {error:.2g}"


def updates(strategy, checkpoint, seed=5):
    """The losses of two steps, and what they add to the weights; nearly all that replica 0 sees is ignored."""
    config = exp_factory.get_exp_config("psanet_seg_scenes")
    config.override(
        {
            "task": {"dataset": "", "model": {**SMALL, "num_classes": 4, "input_size": [17, 17, 3]}},
            "trainer": {
                "optimizer_config": {
                    "optimizer": {"type": "psanet_sgd"},
                    "learning_rate": {"polynomial": {"initial_learning_rate": 0.01}},
                }
            },
        }
    )
    rng = np.random.default_rng(1)
    images = rng.normal(size=(8, 17, 17, 3)).astype(np.float32)
    masks = rng.integers(0, 4, (8, 17, 17)).astype(np.float32)
    masks[0::4] = 255
    masks[1::4, 3:] = 255
    dataset = tf.data.Dataset.from_tensor_slices(batch(images, masks)).batch(4, drop_remainder=True)
    keras.utils.set_random_seed(seed)
    trainer = trainer_of(config, strategy, strategy.experimental_distribute_dataset(dataset))
    before = [weight.numpy() for weight in trainer.model.weights]
    losses = [float(trainer.train(tf.constant(1))["training_loss"]) for _ in range(2)]
    trainer.checkpoint.write(str(checkpoint))
    for weight, expected in zip(load_trained(checkpoint).model.weights, trainer.model.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    return losses, [weight.numpy() - start for weight, start in zip(trainer.model.weights, before, strict=True)]


def test_two_replicas_equal_one_device_and_their_checkpoints_are_read_back(two_replicas, tmp_path):
    losses_one, one = updates(tf.distribute.OneDeviceStrategy("CPU:0"), tmp_path / "one")
    losses_two, two = updates(two_replicas, tmp_path / "two")
    assert losses_two == pytest.approx(losses_one, rel=1e-5)
    for first, second in zip(one, two, strict=True):
        # A bias before a batch normalization, and the like, have no gradient but rounding.
        np.testing.assert_allclose(second, first, atol=1e-3 * max(np.max(np.abs(first)), 1e-4))


def small_experiment(folder, **trainer):
    config = exp_factory.get_exp_config("psanet_seg_scenes")
    size = {"output_size": [33, 33], "shuffle_buffer_size": 5}
    config.override(
        {
            "task": {
                "model": {**SMALL, "input_size": [33, 33, 3]},
                "train_data": {**size, "input_path": f"{folder}/training-*", "global_batch_size": 2},
                "validation_data": {**size, "input_path": f"{folder}/validation-*", "global_batch_size": 2},
            },
            "trainer": {
                "steps_per_loop": 1,
                "checkpoint_interval": 1,
                "validation_interval": 2,
                "train_steps": 4,
                "max_to_keep": 10,
                **trainer,
            },
        }
    )
    return config


def run(config, model_dir, strategy):
    task = PSANetTask(config.task, logging_dir=str(model_dir))
    model, _ = train_lib.run_experiment(strategy, task, "train_and_eval", config, str(model_dir))
    return model


def test_a_run_goes_on_where_it_stopped_and_its_checkpoints_are_read_back(records, tmp_path):
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    run(small_experiment(records[0], train_steps=2), tmp_path, strategy)
    halfway = tf.train.load_checkpoint(str(tmp_path / "ckpt-2"))
    assert halfway.get_tensor("global_step/.ATTRIBUTES/VARIABLE_VALUE") == 2
    model = run(small_experiment(records[0]), tmp_path, strategy)
    # Steps 1 and 2 were not taken again.
    assert [int(path.stem.partition("-")[2]) for path in sorted(tmp_path.glob("ckpt-*.index"))] == [1, 2, 3, 4]
    assert (tmp_path / "best_ckpt" / "info.json").is_file()

    trained = load_trained(tmp_path / "ckpt-4")
    assert trained.info.name == "scenes"
    assert trained.evaluate.base_size == 161
    for weight, expected in zip(trained.model.weights, model.weights, strict=True):
        assert weight.name == expected.name
        np.testing.assert_array_equal(weight, expected)
    # And again the beginning of another run, under a strategy.
    config = small_experiment(records[0])
    config.task.init_checkpoint = str(tmp_path / "ckpt-4")
    task = PSANetTask(config.task)
    other = task.build_model()
    task.initialize(other)
    for weight, expected in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
