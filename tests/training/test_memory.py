"""Estimates of the memory of training, and settings that fit into one."""

import pytest

from psanet_tf import PSANet
from psanet_tf.config import TrainSection
from psanet_tf.keras_api import keras
from psanet_tf.training.fit_memory import RESERVE, Proposal, describe_proposal, fit_memory, parse_memory
from psanet_tf.training.flops import training_flops
from psanet_tf.training.memory import bytes_of, estimate_memory, layer_outputs


@pytest.fixture(scope="module")
def model():
    model = PSANet(4, blocks=(2, 1, 2, 1), width=8, input_shape=(65, 65, 3))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    return model


def test_rematerialization_keeps_the_ends_of_blocks_and_the_largest_inside(model):
    usual, again = (estimate_memory(model, 3, rematerialize=value) for value in (False, True))
    assert estimate_memory(model, 3) == usual
    assert (usual.weights, usual.gradients, usual.optimizer) == (again.weights, again.gradients, again.optimizer)
    # Counted by hand, in floats: (convolutions' and ReLUs' outputs, and the sum) of each block, but for its own output.
    inside = [
        sizes * positions
        for sizes, positions in [
            (4 * 8 + 32 + 32 + 32, 17 * 17),
            (4 * 8 + 32 + 32, 17 * 17),
            (2 * 16 * 17 * 17 / 81 + 2 * 16 + 16 * 19 * 19 / 81 + 3 * 64, 9 * 9),
            (4 * 32 + 3 * 128, 9 * 9),
            (4 * 32 + 2 * 128, 9 * 9),
            (4 * 64 + 3 * 256, 9 * 9),
        ]
    ]
    assert usual.activations - again.activations == 3 * 4 * round(sum(inside) - max(inside))


def test_a_block_wise_attention_is_not_counted_as_a_whole_one():
    sizes = [
        estimate_memory(_compiled(PSANet(4, blocks=(1, 1, 1, 1), width=4, input_shape=(65, 65, 3), block_size=size)), 1)
        for size in (None, 2)
    ]
    assert sizes[0].activations - sizes[1].activations == 4 * 2 * (81 * 25 + 3 * 25 * 25)


def test_a_backbone_counts_with_what_is_inside():
    images = keras.Input((33, 33, 3))
    features = keras.layers.Conv2D(8, 3, 8, padding="same", name="only")(images)
    features = keras.layers.Conv2D(16, 1, name="last")(features)
    options = {"backbone": keras.Model(images, features), "backbone_preprocessing": "raw", "aux_head": False}
    model = _compiled(PSANet(3, input_shape=(33, 33, 3), width=4, **options))
    there = {layer.name: tuple(output.shape) for layer, output in layer_outputs(model)}
    assert there["only"] == (None, 5, 5, 8) and there["last"] == (None, 5, 5, 16)
    assert {"psa", "head_conv", "logits"} <= there.keys() and "backbone" not in there
    usual = training_flops(model)
    assert estimate_memory(model, 2).activations > 2 * 4 * 5 * 5 * (8 + 16)
    model.get_layer("backbone").trainable = False
    products = 5 * 5 * (3 * 3 * 3 * 8 + 8 * 16)
    assert usual - training_flops(model) == 2 * 2 * products


def _compiled(model):
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    return model


def test_settings_that_fit(model):
    section = TrainSection(batch_size=8)

    def needed(images, rematerialize, accumulators=0):
        total = estimate_memory(model, images, rematerialize=rematerialize).total
        return RESERVE + total + accumulators * bytes_of(model.trainable_variables)

    def settings(limit):
        return fit_memory(model, section, replicas=2, limit=limit)

    assert settings(needed(4, False)) == Proposal("none", 8, 1, needed(4, False))
    assert settings(needed(4, False) - 1) == Proposal("blocks", 8, 1, needed(4, True))
    assert settings(needed(4, True) - 1) == Proposal("blocks", 4, 2, needed(2, True, 1))
    with pytest.raises(ValueError, match=r"nothing fits into .*: one image at a time .* needs about .*data.crop_size"):
        settings(needed(1, True, 1) - 1)

    lines = describe_proposal(settings(needed(4, True) - 1), section, replicas=2, limit=10**9)
    assert lines[1] == "  --set train.rematerialize=blocks --set train.batch_size=4 --set train.accumulation_steps=2"
    assert "an update still sees 8 images, but batch normalization 2 at a time on each replica instead of 4" in lines[3]
    as_it_is = describe_proposal(settings(10**12), section, replicas=2, limit=10**12)
    assert len(as_it_is) == 1 and "as it is" in as_it_is[0]


@pytest.mark.parametrize(("text", "size"), [("8GB", 8 * 10**9), ("8GiB", 2**33), ("7500 MB", 75 * 10**8)])
def test_sizes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["much", "-1GB", "0", ""])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="--fit-memory must be a size such as 8GB"):
        parse_memory(text)
