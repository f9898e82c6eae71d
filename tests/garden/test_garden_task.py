"""Experiments, the optimizer, what is refused, and the sources of initial weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

garden = pytest.importorskip("psanet_tf.garden", exc_type=ImportError)

import yaml  # noqa: E402
from official.core import exp_factory, task_factory, train_utils  # noqa: E402
from official.modeling import optimization  # noqa: E402

from psanet_tf.config import load_config  # noqa: E402
from psanet_tf.data.catalog import dataset_info  # noqa: E402
from psanet_tf.garden.configs import PSANetOptimization  # noqa: E402
from psanet_tf.garden.task import PSANetTask, _local  # noqa: E402
from psanet_tf.keras_api import keras  # noqa: E402
from psanet_tf.models import PSANet, build_model  # noqa: E402

ROOT = Path(__file__).parents[2]
EXPERIMENTS = {
    "psanet_seg_ade20k": "ade20k/psanet50",
    "psanet_seg_cityscapes": "cityscapes/psanet50",
    "psanet_seg_pascal": "voc2012/psanet50",
    "psanet_seg_scenes": "scenes/psanet",
}
SMALL = {"num_classes": 3, "input_size": [17, 17, 3], "blocks": [1, 1, 1, 1], "width": 4}


def small_task(**settings):
    config = exp_factory.get_exp_config("psanet_seg_scenes").task
    config.override({"dataset": "", "model": SMALL})
    config.override(settings)
    return PSANetTask(config)


@pytest.mark.parametrize(("name", "file"), EXPERIMENTS.items())
def test_experiments_are_the_configurations_of_psanet_train(name, file):
    experiment = exp_factory.get_exp_config(name)
    config = load_config(ROOT / "configs" / f"{file}.yaml")
    info = dataset_info(config.data.dataset)
    model, data = experiment.task.model, experiment.task.train_data
    assert (experiment.task.dataset, model.num_classes) == (info.name, info.num_classes)
    assert tuple(data.output_size) == config.data.crop_size
    assert (data.aug_scale_min, data.aug_scale_max) == config.data.augmentation.scale
    assert data.rotate_probability == config.data.augmentation.rotate_probability
    assert data.blur_probability == config.data.augmentation.blur_probability
    assert data.global_batch_size == config.train.batch_size
    assert experiment.trainer.train_steps == config.train.epochs * experiment.trainer.validation_interval
    rate = experiment.trainer.optimizer_config.learning_rate.polynomial
    assert rate.initial_learning_rate == config.train.learning_rate
    assert (rate.decay_steps, rate.power) == (experiment.trainer.train_steps, config.train.poly_power)
    optimizer = experiment.trainer.optimizer_config.optimizer
    if config.train.optimizer == "sgd":
        sgd = optimizer.get()
        assert (sgd.momentum, sgd.weight_decay) == (config.train.momentum, config.train.weight_decay)
        assert sgd.head_learning_rate_factor == config.train.head_learning_rate_factor
    else:
        assert optimizer.type == config.train.optimizer
    assert experiment.task.losses.aux_weight == config.train.aux_weight
    arguments = model.arguments() | {"input_shape": (33, 33, 3), "width": 4, "blocks": (1, 1, 1, 1)}
    expected = build_model(config, info.num_classes, input_shape=(33, 33, 3), width=4, blocks=(1, 1, 1, 1))
    assert PSANet(**arguments).get_config() == expected.get_config()


def test_overrides_and_files_reach_the_configuration(tmp_path):
    options = train_utils.ParseConfigOptions(
        experiment="psanet_seg_ade20k",
        config_file=[],
        params_override="task.train_data.input_path=records/training-*,task.model.psa_type=collect,"
        "trainer.optimizer_config.optimizer.psanet_sgd.weight_decay=0.5,task.init_checkpoint=imagenet",
    )
    params = train_utils.parse_configuration(options)
    assert params.task.train_data.input_path == "records/training-*"
    assert params.task.model.psa_type == "collect"
    assert params.trainer.optimizer_config.optimizer.get().weight_decay == 0.5
    train_utils.serialize_config(params, str(tmp_path))
    # Lists, not the Garden's own tuples, which would be no plain YAML.
    written = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert written["task"]["init_checkpoint"] == "imagenet"
    options = train_utils.ParseConfigOptions("psanet_seg_scenes", [str(tmp_path / "params.yaml")])
    assert train_utils.parse_configuration(options).task.dataset == "ade20k"
    with pytest.raises(KeyError, match="does not exist"):
        options = train_utils.ParseConfigOptions("psanet_seg_scenes", [], params_override="task.model.psa_kind=collect")
        train_utils.parse_configuration(options)


def test_the_task_is_found_by_its_configuration():
    task = task_factory.get_task(exp_factory.get_exp_config("psanet_seg_scenes").task)
    assert isinstance(task, PSANetTask)
    model = task.build_model()
    assert isinstance(model, PSANet)
    assert model.description["info"]["name"] == "scenes"
    assert model.description["evaluate"]["base_size"] == 161


def test_the_optimizer_is_pytorchs_with_ten_times_the_rate_for_the_heads():
    config = PSANetOptimization({"optimizer": {"type": "psanet_sgd"}, "learning_rate": {"type": "polynomial"}})
    config.learning_rate.polynomial.override(
        {"initial_learning_rate": 0.1, "decay_steps": 10, "end_learning_rate": 0.0, "power": 0.9}
    )
    config.optimizer.psanet_sgd.override({"weight_decay": 0.1, "decay_norm_and_bias": False})
    optimizer = PSANetTask.create_optimizer(config)
    names = (
        "layer1_0_conv1/kernel",
        "psa/collect/reduce_conv/kernel",
        "head_conv/kernel",
        "aux_bn/gamma",
        "stem_bn1/beta",
    )
    variables = [tf.Variable([1.0, -2.0], name=name) for name in names]
    expected = [np.array([1.0, -2.0]) for _ in names]
    velocities = [np.zeros(2) for _ in names]
    for step, gradient in enumerate(([1.0, -2.0], [0.5, 4.0], [-1.0, 0.25])):
        optimizer.apply_gradients([(tf.constant(gradient), variable) for variable in variables])
        for index, name in enumerate(names):
            decay = 0.0 if name.endswith(("gamma", "beta")) else 0.1
            rate = 0.1 * (1 - step / 10) ** 0.9 * (1 if name.startswith(("layer", "stem")) else 10)
            velocities[index] = 0.9 * velocities[index] + gradient + decay * expected[index]
            expected[index] = expected[index] - rate * velocities[index]
    for variable, values in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable, values, rtol=1e-5)
    again = keras.optimizers.legacy.Optimizer.from_config.__func__(garden.SGD, garden.SGD(0.1).get_config())
    assert again.get_config() == garden.SGD(0.1).get_config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momentum": 1.0}, "momentum must lie in"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more, got -1"),
        ({"head_learning_rate_factor": 0.0}, "head_learning_rate_factor must be above 0"),
    ],
)
def test_arguments_of_the_optimizer_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        garden.SGD(0.1, **arguments)


def test_a_moving_average_is_the_gardens():
    config = exp_factory.get_exp_config("psanet_seg_ade20k").trainer.optimizer_config
    config.override({"ema": {"average_decay": 0.5}}, is_strict=False)
    assert isinstance(PSANetTask.create_optimizer(config), optimization.ExponentialMovingAverage)


def test_the_loss_is_the_mean_over_labelled_pixels_with_the_auxiliary_one():
    rng = np.random.default_rng(2)
    logits, aux = rng.normal(size=(2, 2, 5, 5, 3)).astype(np.float32)
    masks = rng.integers(0, 3, (2, 5, 5)).astype(np.float32)
    masks[0, :3] = 255
    weights = [1.0, 2.0, 0.5]

    def mean(values):
        log_p = values - np.log(np.exp(values).sum(-1, keepdims=True))
        valid = masks != 255
        picked = np.take_along_axis(log_p, np.where(valid, masks, 0).astype(int)[..., None], -1)[..., 0]
        factors = np.where(valid, np.array(weights)[np.where(valid, masks, 0).astype(int)], 0)
        return -(picked * factors).sum() / factors.sum()

    task = small_task(losses={"class_weights": weights, "loss_weight": 3.0})
    loss = task.build_losses({"masks": masks[..., None]}, {"logits": logits, "aux_logits": aux}, aux_losses=[1.5])
    assert float(loss) == pytest.approx(3 * (mean(logits) + 0.4 * mean(aux) + 1.5), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"losses": {"l2_weight_decay": 1e-4}}, "task.losses.l2_weight_decay must be 0.0 .*psanet_sgd.weight_decay"),
        ({"losses": {"top_k_percent_pixels": 0.5}}, "task.losses.top_k_percent_pixels must be 1.0"),
        ({"dataset": "ade20k"}, "task.dataset: ade20k has 150 classes, task.model.num_classes is 3"),
        ({"dataset": "nowhere"}, "unknown dataset 'nowhere'"),
        ({"model": {"psa_type": "both"}}, "psa_type must be one of"),
    ],
)
def test_models_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small_task(**settings).build_model()


def test_initial_weights_are_those_that_psanet_train_takes(tmp_path):
    source = small_task().build_model()
    source.set_weights([weight + np.float32(0.125) for weight in source.get_weights()])
    source.save(tmp_path / "source.keras")
    for address in (str(tmp_path / "source.keras"), f"file://{tmp_path}/source.keras"):
        task = small_task(init_checkpoint=address)
        model = task.build_model()
        task.initialize(model)
        for weight, expected in zip(model.weights, source.weights, strict=True):
            np.testing.assert_array_equal(weight, expected)
    with pytest.raises(FileNotFoundError, match="there is no file or run folder .*missing.pth"):
        small_task(init_checkpoint=str(tmp_path / "missing.pth")).initialize(source)
    with pytest.raises(ValueError, match="task.init_checkpoint_modules must be all"):
        small_task(init_checkpoint="some", init_checkpoint_modules="backbone").initialize(source)
    before = source.get_weights()
    small_task().initialize(source)
    for weight, expected in zip(source.weights, before, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_checkpoints_elsewhere_are_fetched_whole(tmp_path):
    tf.train.CheckpointManager(tf.train.Checkpoint(step=tf.Variable(1)), str(tmp_path / "run"), 1).save()
    for address in (f"file://{tmp_path}/run", f"file://{tmp_path}/run/ckpt-1", f"file://{tmp_path}/run/ckpt-1.index"):
        with _local(address) as path:
            assert Path(path).name == "ckpt-1"
            assert not path.startswith(str(tmp_path))
            assert tf.train.load_checkpoint(path).has_tensor("step/.ATTRIBUTES/VARIABLE_VALUE")
    for address in (f"file://{tmp_path}/none.pth", f"file://{tmp_path}"):
        with pytest.raises(FileNotFoundError, match="task.init_checkpoint"), _local(address):
            pass


def test_the_driver_names_its_experiments(tmp_path):
    command = [sys.executable, "-m", "psanet_tf.garden", "--mode=train", f"--model_dir={tmp_path}"]
    result = subprocess.run(
        [*command, "--experiment=psanet_seg_nowhere"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode != 0
    assert "psanet_seg_nowhere" in result.stderr
