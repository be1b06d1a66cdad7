"""Transports in memory: one that only remembers what was written and in which state it is, and joined pairs of them.

A pair has small buffers, which show missing back-pressure at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

HARP = ("192.0.2.1", 8782)


class MemoryTransport(asyncio.Transport):
    """Bytes written are in `sent`. `unsent` is what it claims to have still to send."""

    def __init__(
        self, peer: tuple[str, int] | str = ("192.0.2.1", 40000), *, half_close: bool = True, **extra: object
    ) -> None:
        super().__init__({"peername": peer, **extra})
        self.sent = b""
        self.writes = 0  # that `sent` was made by
        self.unsent = 0
        self.reading = True
        self.eof_sent = False
        self.closed = False
        self.aborted = False
        self._half_close = half_close

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof_sent
        self.sent += bytes(data)
        self.writes += 1

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self.eof_sent = True

    def can_write_eof(self) -> bool:
        return self._half_close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def take(self) -> bytes:
        """What was written since the last call."""
        sent, self.sent, self.writes = self.sent, b"", 0
        return sent

    @property
    def state(self) -> str:
        return "aborted" if self.aborted else "closed" if self.closed else "open"


class JoinedTransport(asyncio.Transport):
    """One end. What is written waits here, `capacity` bytes before the writer is paused, until the other end reads."""

    def __init__(self, capacity: int) -> None:
        super().__init__({"peername": ("192.0.2.7", 50000), "sockname": HARP})
        self._capacity = capacity
        self._protocol: asyncio.Protocol = asyncio.Protocol()
        self.other: JoinedTransport = self
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
) -> tuple[JoinedTransport, JoinedTransport]:
    """Join two protocols; connection_made has been called on return."""
    ends = JoinedTransport(capacity), JoinedTransport(capacity)
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
