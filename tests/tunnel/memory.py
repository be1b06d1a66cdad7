"""Two asyncio transports joined in memory, with small buffers that show missing back-pressure at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast


class MemoryTransport(asyncio.Transport):
    """One end. What is written waits here, `capacity` bytes before the writer is paused, until the other end reads."""

    def __init__(self, capacity: int) -> None:
        super().__init__({"peername": ("192.0.2.7", 50000), "sockname": ("192.0.2.1", 8782)})
        self._capacity = capacity
        self._protocol: asyncio.Protocol = asyncio.Protocol()
        self.other: MemoryTransport = self
        self._waiting = bytearray()
        self._ended = False  # EOF stands behind `_waiting`
        self._end_delivered = False
        self._paused_writer = False
        self._reading = True
        self._closing = False
        self._scheduled = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The capacity is what the test said."""

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.other._schedule()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        self._waiting += data
        if len(self._waiting) > self._capacity and not self._paused_writer:
            self._paused_writer = True
            self._protocol.pause_writing()
        self._schedule()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._ended = True
        self._schedule()

    def close(self) -> None:
        if not self._closing:
            self._closing = self._ended = True
            self._schedule()
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self._waiting.clear()
        self.close()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._move)

    def _move(self) -> None:
        """Give the other end up to one capacity of bytes; then the end of the stream."""
        self._scheduled = False
        other = self.other
        if not other._reading or other._closing:
            return
        if self._waiting:
            data = bytes(self._waiting[: self._capacity])
            del self._waiting[: self._capacity]
            other._protocol.data_received(data)
            if self._paused_writer and len(self._waiting) <= self._capacity // 2 and not self._closing:
                self._paused_writer = False
                self._protocol.resume_writing()
        if self._waiting:
            self._schedule()
        elif self._ended and not self._end_delivered:
            self._end_delivered = True
            if not other._protocol.eof_received():
                other.close()


def memory_pair(
    first: asyncio.Protocol, second: asyncio.Protocol, capacity: int = 65536
) -> tuple[MemoryTransport, MemoryTransport]:
    """Join two protocols; connection_made has been called on return."""
    ends = MemoryTransport(capacity), MemoryTransport(capacity)
    ends[0].other, ends[1].other = ends[1], ends[0]
    for end, protocol in zip(ends, (first, second), strict=True):
        end.set_protocol(protocol)
        protocol.connection_made(end)
    return ends


class Recorder(asyncio.Protocol):
    """A protocol that remembers what happened to it."""

    def __init__(self, *, half_close: bool = False) -> None:
        self.half_close = half_close
        self.on_data: Callable[[], None] | None = None  # called after each data_received
        self.received = bytearray()
        self.events: list[str] = []
        self.error: Exception | None = None
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not derive from it
        self._event("made")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.changed.set()
        if self.on_data is not None:
            self.on_data()

    def eof_received(self) -> bool:
        self._event("end")
        return self.half_close

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self._event("lost")

    def pause_writing(self) -> None:
        self._event("pause")

    def resume_writing(self) -> None:
        self._event("resume")

    def _event(self, name: str) -> None:
        self.events.append(name)
        self.changed.set()

    async def until(self, *, size: int | None = None, event: str | None = None) -> None:
        """Wait for so many bytes in all, or for an event."""
        async with asyncio.timeout(10):
            while (size is not None and len(self.received) < size) or (event is not None and event not in self.events):
                self.changed.clear()
                await self.changed.wait()
