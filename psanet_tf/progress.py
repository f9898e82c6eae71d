"""Progress of anything that takes long: a bar with the time left on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_Item = TypeVar("_Item")

_SECONDS_BETWEEN_LINES = 15.0


def track(
    items: Iterable[_Item], description: str, total: int | None = None, lines: bool = True
) -> Generator[_Item, None, None]:
    """Yields from `items` and shows how far it is on standard error.

    The time left is estimated without the first item, which takes longer where it builds a graph.

    Args:
        items: any iterable.
        description: what is being done, e.g. ``"writing scenes"``.
        total: number of items; taken from ``len(items)`` if that works.
        lines: False where others tell how far it is: then there is a bar on a terminal, and nothing elsewhere.
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
    if not lines:
        yield from items
        return
    start = last = time.monotonic()
    count = 0
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if count == 1:
            first_done = now
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            left = ""
            if total and count > 1:
                left = f", about {(now - first_done) / (count - 1) * (total - count):.0f} s left"
            print(f"{description}: {count}{f'/{total}' if total else ''}{left}", file=sys.stderr, flush=True)
    print(f"{description}: {count} done in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def track_bytes(description: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of bytes that have come; shows how far it is on standard error.

    Args:
        description: what is coming, e.g. an address.
        total: bytes in all; None if that is not known.
        done: bytes that were there before.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(description, total=total, completed=done)
            yield lambda count: progress.update(task, advance=count)
        return
    of_total = f" of {total / 1e6:.1f}" if total else ""
    last = time.monotonic()

    def advance(count):
        nonlocal done, last
        done += count
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{description}: {done / 1e6:.1f}{of_total} MB", file=sys.stderr, flush=True)

    yield advance
    print(f"{description}: {done / 1e6:.1f}{of_total} MB", file=sys.stderr, flush=True)
