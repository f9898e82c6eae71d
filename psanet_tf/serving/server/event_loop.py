"""The event loop that all servers of a process share."""

import asyncio
import functools
import threading


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
