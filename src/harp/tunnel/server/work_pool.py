"""The work streams of one tunnel: asked for in advance, handed to connections in order (F 5.5)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from harp.errors import TunnelAway
from harp.net.deadlines import Deadlines

SPARE_POOL = 10  # work streams that may wait beyond those the client has offered to keep
WORK_LIMIT = 10.0  # seconds to wait for a work stream


class WorkStream(asyncio.Protocol):
    """A work stream that waits in the pool. The client has nothing to say until it is started."""

    def __init__(self, transport: asyncio.Transport, version: int, left: Callable[[WorkStream], None]) -> None:
        self.transport = transport
        self.version = version
        self._left = left

    def data_received(self, data: bytes) -> None:
        self.transport.abort()

    def eof_received(self) -> None:
        self._left(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._left(self)


class WorkPool:
    """Keeps up to `size` + SPARE_POOL work streams. `ask` sends the client a request for one more.

    `asked` and `arrived` count since login: the client answers requests in order, so a stream shows that it has
    processed what was sent before the request.
    """

    def __init__(self, size: int, deadlines: Deadlines, ask: Callable[[], None]) -> None:
        self.asked = 0
        self.arrived = 0
        self._size = size
        self._deadlines = deadlines
        self._ask = ask
        self._streams: deque[WorkStream] = deque()
        self._waiters: deque[_Waiter] = deque()
        self._closed = ""  # the reason, once it is

    def __len__(self) -> int:
        """Return streams that wait for use."""
        return len(self._streams)

    def __repr__(self) -> str:
        state = f"closed: {self._closed}" if self._closed else f"{len(self)} ready"
        return f"<WorkPool {state}, {self.asked - self.arrived} asked for, {len(self._waiters)} wait>"

    def fill(self) -> None:
        """Ask for as many streams as the client wants to keep."""
        for _ in range(self._size):
            self.ask()

    def ask(self) -> None:
        """Ask the client for one more."""
        self.asked += 1
        self._ask()

    def add(self, transport: asyncio.Transport, version: int) -> None:
        """The client has opened a work stream: give it to the request that has waited longest, or keep it."""
        stream = WorkStream(transport, version, self._forget)
        transport.set_protocol(stream)
        self.arrived += 1
        self._store(stream)

    async def take(self) -> WorkStream:
        """Return a stream for use and have it replaced. Does not suspend while one is ready. Raises TunnelAway."""
        while self._streams:
            stream = self._streams.popleft()
            if not stream.transport.is_closing():
                self.ask()  # for a replacement
                return stream
        stream = await self._wait()
        if self.asked - self.arrived + len(self._streams) < self._size + SPARE_POOL:
            self.ask()  # the pool was too small
        return stream

    def close(self, reason: str) -> list[asyncio.Transport]:
        """Fail everyone who waits; return the transports of the remaining streams, for the caller to end."""
        self._closed = f"the tunnel was closed: {reason}"
        while self._waiters:
            self._waiters.popleft().fail(self._closed)
        streams, self._streams = self._streams, deque()
        return [stream.transport for stream in streams]

    def _store(self, stream: WorkStream) -> None:
        while self._waiters:
            stream_for = self._waiters.popleft().stream
            if not stream_for.done():
                stream_for.set_result(stream)
                return
        if self._closed or len(self._streams) >= self._size + SPARE_POOL:
            stream.transport.close()
        else:
            self._streams.append(stream)

    def _forget(self, stream: WorkStream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)

    async def _wait(self) -> WorkStream:
        """Ask for a stream and wait for it; the first in the queue gets the first that comes."""
        waiter = _Waiter(asyncio.get_running_loop().create_future(), self._deadlines.now + WORK_LIMIT)
        self._deadlines.watch(waiter)
        try:
            while True:
                if self._closed:
                    raise TunnelAway(self._closed)
                self._waiters.append(waiter)
                self.ask()
                stream = await waiter.stream
                if not stream.transport.is_closing():
                    return stream
                waiter.stream = asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if waiter.stream.done() and not waiter.stream.cancelled() and waiter.stream.exception() is None:
                self._store(waiter.stream.result())  # it came in the same moment
            raise
        finally:
            self._deadlines.drop(waiter)
            if waiter in self._waiters:
                self._waiters.remove(waiter)


class _Waiter:
    """A connection that waits for a work stream."""

    def __init__(self, stream: asyncio.Future[WorkStream], deadline: float) -> None:
        self.stream = stream
        self.deadline = deadline

    def fail(self, reason: str) -> None:
        if not self.stream.done():
            self.stream.set_exception(TunnelAway(reason))

    def expired(self) -> None:
        self.fail(f"the client gave no work stream within {WORK_LIMIT:g} s")
