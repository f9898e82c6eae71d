"""When training counts as gone wrong."""

import types

import pytest

from psanet_tf.training.divergence import MAX_DROPPED_STEPS, check_loss


def model(dropped=None):
    return types.SimpleNamespace(optimizer=types.SimpleNamespace(dropped_steps=dropped, learning_rate=0.0123))


def test_without_a_loss_scale_the_loss_must_be_finite():
    check_loss(model(), {"loss": 2.0}, "here")
    for loss in (float("nan"), float("inf")):
        with pytest.raises(
            FloatingPointError, match=rf"the loss became {loss} in epoch 3, step 7 \(learning rate 0.0123"
        ):
            check_loss(model(), {"loss": loss}, "in epoch 3, step 7")


def test_with_a_loss_scale_a_hundred_dropped_steps_in_a_row_are_too_many():
    check_loss(model(MAX_DROPPED_STEPS - 1), {"loss": float("nan")}, "here")
    with pytest.raises(FloatingPointError, match="the last 100 steps were dropped.*mixed_bfloat16"):
        check_loss(model(MAX_DROPPED_STEPS), {"loss": 1.0}, "here")
