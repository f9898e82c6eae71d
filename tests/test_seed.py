"""The fixture that seeds every test is in force, and decides what tests draw."""

import random

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.keras_api import keras

DRAWN = {}


@pytest.fixture(scope="module")
def shared_numbers():
    return draw()


def draw():
    kernel = keras.layers.Dense(3)
    kernel.build([1, 2])
    return [random.random(), np.random.random(), float(tf.random.normal([])), *np.ravel(kernel.get_weights()[0])]  # noqa: NPY002


@pytest.mark.parametrize("turn", ["first", "second"])
def test_every_test_draws_the_same_numbers(turn):
    numbers = draw()
    assert DRAWN.setdefault("numbers", numbers) == numbers


def test_fixtures_of_several_tests_draw_the_same_numbers(shared_numbers):
    assert shared_numbers == draw()


def test_numbers_are_those_of_the_seed(seed):
    numbers = draw()
    assert draw() != numbers
    keras.utils.set_random_seed(seed)
    assert draw() == numbers
