"""The event loop that all servers of a process share."""

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

Result = TypeVar("Result")

# Up to this, parsing or writing takes less time than to hand it to a thread and back.
_SMALL_BYTES = 65_536


@functools.cache
def _loop_in_thread():
    loop = asyncio.new_event_loop()
    threading.Thread(target=_run, args=(loop,), name="serving", daemon=True).start()
    return loop


def _run(loop):
    asyncio.set_event_loop(loop)
    loop.run_forever()


_starting = threading.Lock()


def serving_loop() -> asyncio.AbstractEventLoop:
    """A running loop, in a daemon thread; the same one for every caller.

    gRPC has one queue of events for a process, and every loop that it has ever run in wakes up for each event, to fight
    over it. So there is one, and it stays.
    """
    with _starting:
        return _loop_in_thread()


async def off_loop(executor: Executor, size: int, function: Callable[..., Result], *arguments: object) -> Result:
    """What `function` returns, run in one of `executor`'s threads if it has many bytes, `size`, to look at."""
    if size <= _SMALL_BYTES:
        return function(*arguments)
    return await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)
