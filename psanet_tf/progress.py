"""Progress of anything that takes long: a bar with the time left on a terminal, a line now and then elsewhere."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 15.0


def track(items, description, total=None):
    """Yields from `items` and shows how far it is on standard error.

    Args:
        items: any iterable.
        description: what is being done, e.g. ``"writing scenes"``.
        total: number of items; taken from ``len(items)`` if that works.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=False) as progress:
            yield from progress.track(items, description=description, total=total)
        return
    start = last = time.monotonic()
    count = 0
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            left = f", about {(now - start) / count * (total - count):.0f} s left" if total else ""
            print(f"{description}: {count}{f'/{total}' if total else ''}{left}", file=sys.stderr, flush=True)
    print(f"{description}: {count} done in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
