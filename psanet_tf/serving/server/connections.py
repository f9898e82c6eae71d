"""What clients may hold at the same time: connections, and bodies that have not arrived yet."""

import asyncio
import collections
import contextlib
from collections.abc import Awaitable, Iterator
from typing import TypeVar

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import ServingError

with needs_extra("serving", "the model server"):
    from aiohttp import web

Body = TypeVar("Body")

_SETTLED_SECONDS = 0.01


class BodyTooSlowError(ServingError):
    """A request's body takes too long to arrive: DEADLINE_EXCEEDED, and in HTTP a status of its own."""

    http_status = 408

    def __init__(self, message: str) -> None:
        super().__init__("DEADLINE_EXCEEDED", message)


class Uploads:
    """Bodies that are arriving, over either protocol.

    None takes a place among the requests under way, so that idle uploads keep nobody else out. There may be `limit` of
    them, which bounds their memory: a further one makes the one give way that has taken longest.

    Args:
        limit: bodies at the same time.
        seconds: that each may take.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.seconds = seconds
        self._limit = limit
        self._arriving = collections.OrderedDict()  # task -> None, the oldest first

    async def read(self, body: Awaitable[Body]) -> Body:
        """Waits for a body.

        Raises:
            BodyTooSlowError: it took longer than `seconds`.
            ServingError: UNAVAILABLE, it gave way.
        """
        task = asyncio.ensure_future(body)
        self._arriving[task] = None
        if len(self._arriving) > self._limit:
            oldest, _ = self._arriving.popitem(last=False)
            oldest.cancel()
        try:
            done, _ = await asyncio.wait([task], timeout=self.seconds)
            if not done:
                raise BodyTooSlowError(f"the request's body did not arrive within {self.seconds:g} seconds")
            if task.cancelled():
                raise ServingError("UNAVAILABLE", "too many requests are arriving, and this one took longest")
            return task.result()
        finally:
            self._arriving.pop(task, None)
            task.cancel()


class HttpConnections:
    """Makes the protocol of each HTTP connection; where there are too many, the longest idle one gives way, then the
    one whose request takes longest to arrive. What was answered is sent before a connection is closed.

    Args:
        server: aiohttp's, which makes the protocols.
        limit: connections at the same time, but for those whose requests have been taken.
        longest_seconds: a connection of that age is closed after its next answer, so that load balancers can move it.
    """

    def __init__(self, server: web.Server, limit: int, longest_seconds: float) -> None:
        self._server = server
        self._limit = limit
        self._longest_seconds = longest_seconds
        self._opened = {}
        self._handled = set()
        self._at_work = set()

    def __call__(self) -> asyncio.Protocol:
        """What asyncio calls for every new connection."""
        connection = self._server()
        loop = asyncio.get_running_loop()
        self._opened[connection] = loop.time()
        # Several connections may be accepted before aiohttp hears of the first.
        loop.call_later(_SETTLED_SECONDS, self._make_room)
        return connection

    @contextlib.contextmanager
    def handled(self, connection: web.RequestHandler) -> Iterator[None]:
        """For the length of the block, a request of `connection` is handled, whose body may still be arriving."""
        self._handled.add(connection)
        try:
            yield
        finally:
            self._handled.discard(connection)

    @contextlib.contextmanager
    def at_work(self, connection: web.RequestHandler) -> Iterator[None]:
        """For the length of the block, `connection` has a request under way, whose body has arrived."""
        self._at_work.add(connection)
        try:
            yield
        finally:
            self._at_work.discard(connection)

    def is_old(self, connection: web.RequestHandler) -> bool:
        """Whether `connection` should be closed after the answer that it gets now."""
        now = asyncio.get_running_loop().time()
        return now - self._opened.get(connection, now) > self._longest_seconds

    def close_idle(self) -> None:
        """Closes the connections without a request."""
        for connection in self._server.connections:
            if connection not in self._handled:
                connection.force_close()

    def _make_room(self):
        connections = self._server.connections  # the oldest first
        now = asyncio.get_running_loop().time()
        self._opened = {connection: self._opened.get(connection, now) for connection in connections}
        idle = [connection for connection in connections if connection not in self._at_work]
        idle.sort(key=lambda connection: connection in self._handled)
        for connection in idle[: max(0, len(connections) - self._limit)]:
            connection.force_close()
