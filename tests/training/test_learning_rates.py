"""Rates by pattern: which variables learn how fast, and the table of it."""

import pytest

from psanet_tf import PSANet
from psanet_tf.config import TrainSection
from psanet_tf.keras_api import keras
from psanet_tf.training.learning_rates import describe_learning_rates, distinct_rates, variable_names
from psanet_tf.training.recipe import build_optimizer


@pytest.fixture(scope="module")
def network():
    return PSANet(3, input_shape=(33, 33, 3), blocks=(1, 1, 1, 1), width=4)


def compiled(network, **options):
    optimizer = build_optimizer(TrainSection(**options), 10, network)
    network.compile(optimizer)
    optimizer.build(network.trainable_variables)
    return {
        variable.path: factor for variable, factor in zip(network.trainable_variables, optimizer._factors, strict=True)
    }


def test_the_first_pattern_that_fits_counts_before_the_heads(network):
    multipliers = {"layer4_.*/kernel": 0.5, "backbone/.*": 0.1, "^psa/collect/": 2.0}
    factors = compiled(network, learning_rate_multipliers=multipliers)

    def expected(path):
        if path.startswith(("stem_", "layer")):
            return 0.5 if path.startswith("layer4_") and path.endswith("kernel") else 0.1
        return 2.0 if path.startswith("psa/collect/") else 10.0

    assert factors == {path: expected(path) for path in factors}
    assert set(factors.values()) == {0.5, 0.1, 2.0, 10.0}
    assert distinct_rates(network) == pytest.approx([0.001, 0.005, 0.02, 0.1])


def test_the_backbone_is_called_so_whatever_it_is(network):
    names = variable_names(network)
    of_backbone = {path for path, name in names.items() if name != path}
    assert of_backbone == {path for path in names if path.startswith(("stem_", "layer"))}
    assert all(names[path] == f"backbone/{path}" for path in of_backbone)

    images = keras.Input((33, 33, 3))
    features = keras.layers.Conv2D(8, 3, 8, padding="same", name="only")(images)
    features = keras.layers.Conv2D(8, 1, name="last")(features)
    options = {"backbone": keras.Model(images, features), "backbone_preprocessing": "raw", "aux_head": False}
    given = PSANet(3, input_shape=(33, 33, 3), width=4, **options)
    names = variable_names(given)
    assert sorted(name.split("/")[-2] for name in names.values() if name.startswith("backbone/")) == [
        *["last"] * 2,
        *["only"] * 2,
    ]
    assert compiled(given, learning_rate_multipliers={"^backbone/": 0.1}) == {
        path: 0.1 if name.startswith("backbone/") else 10.0 for path, name in names.items()
    }


def test_the_table_says_all_of_it(network):
    section = {"learning_rate_multipliers": {"backbone/layer4": 0.5}, "learning_rate": 0.02}
    compiled(network, **section)
    title, *lines = describe_learning_rates(TrainSection(**section), network)
    assert title == "learning rates at the start (train.learning_rate 0.02):"
    assert lines[0].strip().startswith("0.01 (x 0.5): backbone/layer4: ")
    assert "variables, backbone/layer4_0_" in lines[0] and " to backbone/layer4_0_" in lines[0]
    assert lines[1].strip().startswith("0.2 (x 10): attention module and heads: ")
    assert lines[2].strip().startswith("0.02 (x 1): all others: ")
    counts = [int(line.split(": ")[2].split()[0]) for line in lines]
    assert sum(counts) == len(network.trainable_variables)


def test_patterns_that_fit_nothing(network):
    with pytest.raises(ValueError, match=r"'layer9.*' is found in no path .*backbone/layer\d_0_"):
        compiled(network, learning_rate_multipliers={"layer9.*": 0.5})
    with pytest.raises(
        ValueError, match=r"'backbone/layer4.*' is found in no path of a trainable variable that is left"
    ):
        compiled(network, learning_rate_multipliers={"backbone/.*": 0.1, "backbone/layer4.*": 0.5})
