"""When a run ends because nothing gets better."""

import pytest

from psanet_tf.config import EarlyStoppingSection, TrainSection
from psanet_tf.training.early_stopping import describe_stop, is_finished, stops_early, watched
from psanet_tf.training.state import Position


def after(section, rows, position=None):
    """Positions after epochs with these rows."""
    positions = [position or Position()]
    for epoch, row in enumerate(rows, start=positions[0].epoch + 1):
        position = Position(**{**vars(positions[-1]), "epoch": epoch})
        positions.append(watched(section, position, row))
    return positions[1:]


@pytest.mark.parametrize(
    ("monitor", "values", "waited"),
    [
        ("val_miou", [0.1, 0.3, 0.2, 0.3, 0.31], [0, 0, 1, 2, 0]),
        ("val_loss", [2.0, 3.0, 1.0, 1.0, 0.5], [0, 1, 0, 1, 0]),
    ],
)
def test_values_that_are_not_better_are_counted(monitor, values, waited):
    section = EarlyStoppingSection(monitor=monitor, patience=2)
    positions = after(section, [{monitor: value} for value in values])
    assert [position.waited for position in positions] == waited
    assert [stops_early(section, position) for position in positions] == [count >= 2 for count in waited]
    assert positions[-1].monitored_best == values[-1]


def test_a_value_has_to_be_better_by_so_much():
    section = EarlyStoppingSection(patience=3, min_delta=0.1)
    rows = [{"val_miou": value} for value in (0.5, 0.55, 0.59, 0.61, 0.7)]
    positions = after(section, rows)
    assert [position.waited for position in positions] == [0, 1, 2, 0, 1]


def test_epochs_without_the_score_do_not_count():
    section = EarlyStoppingSection(patience=1)
    positions = after(section, [{"val_miou": 0.5}, {"loss": 1.0}, {"loss": 1.0}, {"val_miou": 0.5}])
    assert [position.waited for position in positions] == [0, 0, 0, 1]
    assert "the last 1 values of val_miou were not better than 0.5000" in describe_stop(section, positions[-1])


def test_another_score_starts_over_and_none_forgets():
    (position,) = after(EarlyStoppingSection(patience=1), [{"val_miou": 0.5}])
    position = after(EarlyStoppingSection(patience=1), [{"val_miou": 0.4}], position)[0]
    loss = EarlyStoppingSection(monitor="loss", patience=1)
    assert not stops_early(loss, position)
    (other,) = after(loss, [{"loss": 2.0}], position)
    assert (other.monitored, other.monitored_best, other.waited) == ("loss", 2.0, 0)
    (none,) = after(None, [{"loss": 2.0}], position)
    assert none == Position(epoch=3)


def test_what_is_finished():
    waited = Position(epoch=3, monitored="val_miou", monitored_best=0.5, waited=2)
    stopping = {"early_stopping": EarlyStoppingSection(patience=2)}
    assert is_finished(TrainSection(epochs=5, **stopping), waited)
    assert not is_finished(TrainSection(epochs=5), waited)
    assert is_finished(TrainSection(epochs=3), waited)
    # With more patience the run goes on, and within an epoch it is not over.
    assert not is_finished(TrainSection(epochs=5, early_stopping=EarlyStoppingSection(patience=3)), waited)
    assert not is_finished(TrainSection(epochs=5, **stopping), Position(3, 2, monitored="val_miou", waited=2))
