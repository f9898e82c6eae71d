"""What is said while training, on the terminal and in the run folder."""

import datetime
import sys
from pathlib import Path

from psanet_tf.files import check_space

_ROOM = 100_000


class RunLog:
    """Lines on standard error that are also kept, with date and time.

    Args:
        file: text, to which lines are added.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def say(self, line: str) -> None:
        """Says it and keeps it.

        Raises:
            NoSpaceError: there is no room for the file.
        """
        print(line, file=sys.stderr, flush=True)
        check_space(self._file, _ROOM)
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(f"{now} {line}\n")
