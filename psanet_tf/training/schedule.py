"""How long a run is: noted when it starts, so that neither data nor configuration change it in silence."""

import dataclasses
import json
import os
from pathlib import Path

from psanet_tf.files import atomic_file
from psanet_tf.training.state import Position


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Steps of a run.

    Attributes:
        steps_per_epoch: of a whole epoch.
        epochs: of the whole run; the learning rate falls to 0 over them.
        extensions: for each time the run was made longer (epochs before, epochs after, whole epochs done then, steps
            done in the epoch after them).
    """

    steps_per_epoch: int
    epochs: int
    extensions: tuple[tuple[int, int, int, int], ...] = ()

    def updates(self, accumulation_steps: int) -> int:
        """Updates of the weights in the whole run, for the learning rate."""
        return self.epochs * self.steps_per_epoch // accumulation_steps

    def extended(self, epochs: int, position: Position) -> "Schedule":
        """This schedule made longer.

        Args:
            epochs: of the whole run then.
            position: Position at which that happens.
        """
        note = (self.epochs, epochs, position.epoch, position.step)
        return dataclasses.replace(self, epochs=epochs, extensions=(*self.extensions, note))

    def save(self, path: str | os.PathLike) -> None:
        """Writes JSON."""
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Schedule":
        """Reads a file of `save`.

        Raises:
            ValueError: the file is damaged; the message names it.
            FileNotFoundError: there is no such file.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            extensions = tuple(tuple(int(number) for number in note) for note in values["extensions"])
            return cls(int(values["steps_per_epoch"]), int(values["epochs"]), extensions)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error!r}): it says how many steps the run has") from None
