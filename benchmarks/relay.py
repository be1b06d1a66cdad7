"""A long way between two peers on one machine: `python -m benchmarks.relay <port> <target port> <round trip in ms>`.

Every byte comes out half a round trip after it went in, as many a second as go in. What is under way is bounded; TCP
ends here, so each side's own round trip is short, and only what is agreed end to end (yamux's windows) feels the way.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import cast

import uvloop

LIMIT = 64 << 20  # bytes under way in one direction
FULL = 4 << 20  # bytes that wait for a slow receiver, beside them


class End(asyncio.Protocol):
    """One end of a connection; what it receives leaves at the other, later."""

    def __init__(self, delay: float) -> None:
        self.other: End | None = None
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._line: deque[tuple[float, bytes]] = deque()  # when it is due, and what; b"" is the end
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None
        self._blocked = False  # the receiver is slow

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=FULL)

    def data_received(self, data: bytes) -> None:
        self._put(data)
        if self._under_way > LIMIT:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._put(b"")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._put(b"")

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other._blocked = True

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other._blocked = False
            self.other.go_on()

    def go_on(self) -> None:
        """Hand on what is due."""
        self._timer = None
        if self.other is None:
            return
        while self._line and not self._blocked and self._line[0][0] <= self._loop.time():
            _, data = self._line.popleft()
            self._under_way -= len(data)
            if data:
                self.other.transport.write(data)
            else:
                self.other.transport.close()
        if self._under_way <= LIMIT and not self.transport.is_closing():
            self.transport.resume_reading()
        if self._line and not self._blocked and self._timer is None:
            self._timer = self._loop.call_at(self._line[0][0], self.go_on)

    def _put(self, data: bytes) -> None:
        self._line.append((self._loop.time() + self._delay, data))
        self._under_way += len(data)
        if self._timer is None and not self._blocked:
            self._timer = self._loop.call_later(self._delay, self.go_on)


async def serve(port: int, target: int, round_trip: float) -> None:
    """Until the process is ended."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    class Entry(End):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(join(self))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def join(near: End) -> None:
        try:
            _, far = await loop.create_connection(lambda: End(round_trip / 2), "127.0.0.1", target)
        except OSError:
            near.transport.abort()
            return
        near.other, far.other = far, near
        near.go_on()

    server = await loop.create_server(lambda: Entry(round_trip / 2), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))
