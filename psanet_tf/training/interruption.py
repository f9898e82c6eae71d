"""Ctrl-C and the scheduler's SIGTERM: training ends after the step it is in, with its state saved."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """Training was asked to stop, and did.

    Attributes:
        signal: number of the signal; the exit status that shells and schedulers expect is 128 more.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal.Signals(number)


class StopSignals:
    """Notes SIGINT and SIGTERM in place of what Python does about them.

    Attributes:
        received: the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.received = None
        self._deferred = False

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """In this block a signal raises TrainingInterrupted; in threads other than the main one nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """In this block within `caught` the first signal is noted only; a second SIGINT raises all the same."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _handle(self, number, frame):
        again = self.received is not None
        self.received = self.received or number
        name = signal.Signals(number).name
        if not self._deferred or (again and number == signal.SIGINT):
            raise TrainingInterrupted(number, f"stopped at once by {name}; nothing was saved after the last message")
        if not again:
            # Not print: the signal may have come in the middle of one.
            os.write(2, f"\npsanet: {name}: saving and stopping after this step (Ctrl-C: stop at once)\n".encode())
