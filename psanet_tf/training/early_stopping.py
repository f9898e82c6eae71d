"""When a run is over: after all its epochs, or when a score has not become better for a while."""

import dataclasses
from collections.abc import Mapping

from psanet_tf.config import EarlyStoppingSection, TrainSection
from psanet_tf.training.state import Position


def watched(section: EarlyStoppingSection | None, position: Position, row: Mapping[str, float]) -> Position:
    """The position after an epoch with what early stopping knows by then.

    Args:
        section: `EarlyStoppingSection`, or None for no early stopping.
        position: Position after the epoch.
        row: of metrics.csv for that epoch; without the monitored column, as where nothing was validated, it does not
            count.

    Returns:
        Position.
    """
    if section is None:
        return dataclasses.replace(position, monitored=None, monitored_best=None, waited=0)
    monitor, sign = section.monitor, 1 if "miou" in section.monitor else -1
    if position.monitored != monitor:
        position = dataclasses.replace(position, monitored=monitor, monitored_best=None, waited=0)
    if monitor not in row:
        return position
    value, best = row[monitor], position.monitored_best
    if best is None or sign * (value - best) > section.min_delta:
        return dataclasses.replace(position, monitored_best=value, waited=0)
    return dataclasses.replace(position, waited=position.waited + 1)


def stops_early(section: EarlyStoppingSection | None, position: Position) -> bool:
    """Whether a run that is there has waited long enough for a better value."""
    return (
        section is not None
        and position.step == 0
        and position.monitored == section.monitor
        and position.waited >= section.patience
    )


def is_finished(section: TrainSection, position: Position) -> bool:
    """Whether there is nothing left to do for a run of this configuration that is there."""
    return position.epoch >= section.epochs or stops_early(section.early_stopping, position)


def describe_stop(section: EarlyStoppingSection, position: Position) -> str:
    """A line on why a run stopped early, and what makes it go on."""
    return (
        f"stopped early after epoch {position.epoch}: the last {position.waited} values of {position.monitored} were "
        f"not better than {position.monitored_best:.4f}; a larger train.early_stopping.patience lets it go on"
    )
