"""SGD against PyTorch's rule, and every step that DistributedOptimizer takes around an optimizer."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.config import TrainSection
from psanet_tf.config.train import KERAS_OPTIMIZERS
from psanet_tf.keras_api import keras
from psanet_tf.models.variables import HEAD_PATTERN, NO_DECAY_PATTERN
from psanet_tf.training.distributed_optimizer import DistributedOptimizer
from psanet_tf.training.optimizers import SGD
from psanet_tf.training.recipe import WarmUp, build_optimizer, build_schedule

GRADIENTS = [np.array(g, np.float32) for g in ([1.0, -2.0], [0.5, 4.0], [-1.0, 0.25], [3.0, 3.0])]


class Named(keras.Layer):
    """One variable with the path <layer name>/<variable name>."""

    def __init__(self, layer_name, variable_name="kernel"):
        super().__init__(name=layer_name)
        self.weight = self.add_weight(shape=(2,), initializer="ones", name=variable_name)
        self.built = True


def apply(optimizer, gradients, layer_name="layer1_0_conv1", variable_name="kernel"):
    """The values of one variable, 1 at first, after each gradient."""
    variable = Named(layer_name, variable_name).weight
    values = []
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
        values.append(variable.numpy())
    return np.array(values)


def reference(rates, gradients, momentum=0.9, weight_decay=0.1):
    weight, velocity, values = np.ones(2), 0.0, []
    for rate, gradient in zip(rates, gradients, strict=False):
        velocity = momentum * velocity + gradient + weight_decay * weight
        weight = weight - rate * velocity
        values.append(weight)
    return np.array(values)


def test_sgd_keeps_the_rate_out_of_the_velocity():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, 4, 0.0, power=0.9)
    rates = [0.1 * (1 - i / 4) ** 0.9 for i in range(4)]
    values = apply(SGD(schedule, weight_decay=0.1), GRADIENTS)
    np.testing.assert_allclose(values, reference(rates, GRADIENTS), rtol=1e-6)


def test_sgd_equals_torch():
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.1)
    for gradient in GRADIENTS:
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    values = apply(SGD(0.1, weight_decay=0.1), GRADIENTS)
    np.testing.assert_allclose(values[-1], weight.detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize(("name", "decayed"), [("kernel", True), ("gamma", False), ("beta", False), ("bias", False)])
def test_no_decay_on_norm_and_bias(name, decayed):
    values = apply(SGD(0.1, weight_decay=0.1, no_decay_pattern=NO_DECAY_PATTERN), GRADIENTS, variable_name=name)
    expected = reference([0.1] * 4, GRADIENTS, weight_decay=0.1 if decayed else 0.0)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    adam = DistributedOptimizer(
        keras.optimizers.Adam(0.1), decoupled_weight_decay=0.5, no_decay_pattern=NO_DECAY_PATTERN
    )
    moved = apply(adam, [np.zeros(2, np.float32)], variable_name=name)
    np.testing.assert_allclose(moved[0], 1 - 0.05 * decayed, rtol=1e-6)


@pytest.mark.parametrize(
    ("layer_name", "factor"), [("psa", 10), ("head_conv", 10), ("aux_bn", 10), ("layer4_0_conv1", 1), ("header", 1)]
)
def test_rate_factor_of_the_heads(layer_name, factor):
    optimizer = DistributedOptimizer(SGD(0.01, weight_decay=0.1), learning_rate_factors=[(HEAD_PATTERN, 10)])
    values = apply(optimizer, GRADIENTS, layer_name=layer_name)
    np.testing.assert_allclose(values, reference([0.01 * factor] * 4, GRADIENTS), rtol=1e-6)


def test_rate_factors_match_the_networks_layers():
    from psanet_tf import PSANet

    model = PSANet(3, input_shape=(33, 33, 3), blocks=(1, 1, 1, 1), width=4)
    optimizer = DistributedOptimizer(SGD(), learning_rate_factors=[(HEAD_PATTERN, 10)])
    optimizer.build(model.trainable_variables)
    factors = zip(model.trainable_variables, optimizer._factors, strict=True)
    tenfold = {variable.path.split("/")[0] for variable, factor in factors if factor == 10}
    assert tenfold == {"psa", "head_conv", "head_bn", "head_classifier", "aux_conv", "aux_bn", "aux_classifier"}


def test_clipping_by_the_global_norm():
    gradient = np.array([30.0, 40.0], np.float32)
    clipped = apply(DistributedOptimizer(SGD(0.1, momentum=0.0), clip_norm=5.0), [gradient])
    np.testing.assert_allclose(clipped[0], [1 - 0.3, 1 - 0.4], rtol=1e-6)
    untouched = apply(DistributedOptimizer(SGD(0.1, momentum=0.0), clip_norm=500.0), [gradient])
    np.testing.assert_allclose(untouched[0], [1 - 3, 1 - 4], rtol=1e-6)


def test_accumulation_updates_by_the_mean_and_counts_updates():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, 2, 0.0, power=1.0)
    optimizer = DistributedOptimizer(SGD(schedule, weight_decay=0.1), accumulation_steps=2)
    values = apply(optimizer, GRADIENTS)
    means = [(GRADIENTS[0] + GRADIENTS[1]) / 2, (GRADIENTS[2] + GRADIENTS[3]) / 2]
    expected = reference([0.1, 0.05], means)
    np.testing.assert_allclose(values, [[1, 1], expected[0], expected[0], expected[1]], rtol=1e-6)
    assert optimizer.iterations.numpy() == 2


def test_moving_average_of_the_weights():
    optimizer = DistributedOptimizer(SGD(0.1), ema_decay=0.5)
    values = apply(optimizer, GRADIENTS)
    expected = values[0]
    for value in values[1:]:
        expected = 0.5 * expected + 0.5 * value
    np.testing.assert_allclose(optimizer.averages[0].numpy(), expected, rtol=1e-6)


def test_loss_scale_falls_at_a_bad_gradient_and_grows_after_good_ones():
    optimizer = DistributedOptimizer(SGD(0.1, momentum=0.0), initial_loss_scale=8.0, loss_scale_growth_steps=2)
    good, bad = np.array([8.0, 16.0], np.float32), np.array([1.0, np.inf], np.float32)
    variable = Named("x").weight
    scales, values = [], []
    dropped = []
    for gradient in (good, bad, good, good, good, bad, bad):
        scales.append(float(optimizer.scale_loss(tf.constant(1.0))))
        optimizer.apply_gradients([(tf.constant(gradient / 8 * scales[-1]), variable)])
        values.append(variable.numpy())
        dropped.append(int(optimizer.dropped_steps.numpy()))
    assert scales == [8, 8, 4, 4, 8, 8, 4]
    assert dropped == [0, 1, 0, 0, 0, 1, 2]
    steps = np.array([1, 1, 2, 3, 4, 4, 4])[:, None]  # bad gradients were dropped
    np.testing.assert_allclose(values, 1 - 0.1 * steps * np.array([[1.0, 2.0]]), rtol=1e-6)
    assert optimizer.iterations.numpy() == 4


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_nan_on_replica_1_does_not_reach_the_weights(two_replicas, accumulation_steps):
    with two_replicas.scope():
        variable = Named("x").weight
        optimizer = DistributedOptimizer(
            SGD(0.1), initial_loss_scale=2.0, accumulation_steps=accumulation_steps, clip_norm=1.0
        )
        optimizer.build([variable])

    @tf.function
    def step(value):
        def replica_step():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            gradient = tf.where(tf.equal(replica, 1), value, 1.0) * tf.ones(2)
            optimizer.apply_gradients([(gradient, variable)])

        two_replicas.run(replica_step)

    step(tf.constant(float("nan")))
    np.testing.assert_array_equal(variable.numpy(), [1, 1])
    assert optimizer.iterations.numpy() == 0
    for _ in range(accumulation_steps):
        step(tf.constant(1.0))
    assert optimizer.iterations.numpy() == 1
    for copy in two_replicas.experimental_local_results(variable.value):
        assert np.isfinite(copy.numpy()).all() and (copy.numpy() < 1).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.1},
        {"accumulation_steps": 2},
        {"ema_decay": 0.9},
        {"initial_loss_scale": 1024.0},
        {"accumulation_steps": 2, "initial_loss_scale": 64.0, "clip_norm": 0.1, "ema_decay": 0.9},
    ],
)
def test_two_replicas_equal_one_device(two_replicas, options):
    gradients = np.random.default_rng(0).normal(size=(4, 2, 2)).astype(np.float32)

    def weights(strategy):
        with strategy.scope():
            variable = Named("head_x").weight
            optimizer = DistributedOptimizer(
                SGD(0.1, weight_decay=0.1), learning_rate_factors=[(HEAD_PATTERN, 2)], **options
            )
            optimizer.build([variable])
        scale = options.get("initial_loss_scale", 1.0)

        @tf.function
        def step(gradient):
            def replica_step():
                replica = tf.distribute.get_replica_context()
                parts = tf.split(gradient, replica.num_replicas_in_sync)
                own = tf.gather(tf.stack(parts), replica.replica_id_in_sync_group)
                optimizer.apply_gradients([(scale * tf.reduce_sum(own, axis=0), variable)])

            strategy.run(replica_step)

        for gradient in gradients:
            step(tf.constant(gradient))
        return [variable.numpy()] + [state.numpy() for state in optimizer.variables]

    for one, two in zip(weights(tf.distribute.OneDeviceStrategy("CPU:0")), weights(two_replicas), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-7)


def test_schedule_is_poly_with_warm_up():
    schedule = build_schedule(TrainSection(learning_rate=0.02, poly_power=0.9, warmup_steps=4), updates=10)
    rates = [float(schedule(i)) for i in range(10)]
    expected = [0.02 * (1 - i / 10) ** 0.9 * min(1, (i + 1) / 4) for i in range(10)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    assert isinstance(schedule, WarmUp)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert float(again(1)) == rates[1]


@pytest.mark.parametrize("name", ["sgd", *KERAS_OPTIMIZERS])
def test_every_named_optimizer_moves_against_the_gradient_and_comes_back_from_its_config(name):
    section = TrainSection(optimizer=name, learning_rate=0.01, ema_decay=0.9, clip_norm=1.0)
    optimizer = build_optimizer(section, updates=10)
    values = apply(optimizer, [np.array([1.0, -1.0], np.float32)] * 2)
    assert values[1, 0] < 1 < values[1, 1]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert again.get_config() == optimizer.get_config()


def test_arguments_of_a_keras_optimizer():
    section = TrainSection(optimizer="adam", learning_rate=1e-3, optimizer_arguments={"beta_1": 0.5, "amsgrad": True})
    inner = build_optimizer(section, updates=10).optimizer
    assert (inner.beta_1, inner.amsgrad) == (0.5, True)
    with pytest.raises(ValueError, match=r"train.optimizer_arguments .*beta_9"):
        build_optimizer(section.model_copy(update={"optimizer_arguments": {"beta_9": 0.5}}), updates=10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DistributedOptimizer(keras.optimizers.Nadam()), "Nadam does part of its work"),
        (lambda: SGD(momentum=1.0), "momentum"),
        (lambda: SGD(weight_decay=-1.0), "weight_decay"),
        (lambda: DistributedOptimizer("sgd"), "keras.optimizers.Optimizer"),
        (lambda: DistributedOptimizer(keras.optimizers.Adam(clipnorm=1.0)), "clipnorm of the wrapped optimizer"),
        (lambda: DistributedOptimizer(SGD(), clip_norm=0), "clip_norm"),
        (lambda: DistributedOptimizer(SGD(), accumulation_steps=0), "accumulation_steps"),
        (lambda: DistributedOptimizer(SGD(), ema_decay=1.0), "ema_decay"),
        (lambda: DistributedOptimizer(SGD(), decoupled_weight_decay=-1), "decoupled_weight_decay"),
        (lambda: WarmUp(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5), 0), "steps"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_variable_without_gradient_is_named():
    variables = [Named("first").weight, Named("second").weight]
    with pytest.raises(ValueError, match="second/kernel"):
        DistributedOptimizer(SGD()).apply([tf.ones(2), None], variables)
