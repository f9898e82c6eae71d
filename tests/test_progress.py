"""What is shown of how far a long piece of work is."""

from types import SimpleNamespace

import pytest
from rich.progress import Progress

from psanet_tf import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test sets it."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_the_first_item_does_not_count_for_the_time_left(clock, capsys):
    """100 s for the first, which builds the graph, then 10 s for each."""
    for index in progress.track(range(9), "training"):
        clock.now += 10 if index else 100
    assert capsys.readouterr().err.splitlines() == [
        "training: 1/9",
        "training: 3/9, about 60 s left",
        "training: 5/9, about 40 s left",
        "training: 7/9, about 20 s left",
        "training: 9/9, about 0 s left",
        "training: 9 done in 180.0 s",
    ]


def test_without_a_total_there_is_no_estimate(clock, capsys):
    for _ in progress.track(iter(range(2)), "reading"):
        clock.now += 20
    assert capsys.readouterr().err.splitlines() == ["reading: 1", "reading: 2", "reading: 2 done in 40.0 s"]


def test_the_bar_does_not_count_it_either(clock):
    bar = Progress(get_time=lambda: clock.now, disable=True)
    task = bar.add_task("training", total=9)
    for seconds in (100, 10, 10):
        clock.now += seconds
        bar.update(task, advance=1)
    assert bar.tasks[0].time_remaining == 60
