"""Two transports joined: what one receives the other sends, at the pace of the slower one."""

from __future__ import annotations

import asyncio
from typing import cast


class Relay(asyncio.Protocol):
    """One end of a pair. Half-closes are passed on; when one end is lost the other is closed, or aborted with it.

    What arrives before the other end is connected is not read: reading starts with the pair.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Relay | None = None
        self.sent = 0  # bytes that this end was given to send
        self.ended = False  # this end sends us no more

    def join(self, other: Relay) -> None:
        """Make a pair of two connected ends, and begin."""
        assert self.transport is not None
        assert other.transport is not None
        self.other, other.other = other, self
        self.transport.resume_reading()
        other.transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's TLS transports do not derive from it
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        other = self.other
        if other is not None and other.transport is not None:
            other.sent += len(data)
            other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        other = self.other
        if other is None or other.transport is None or other.ended or not other.transport.can_write_eof():
            return False
        other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        other, self.other = self.other, None
        if other is None or other.transport is None:
            return
        if exc is None:
            other.transport.close()
        else:
            other.transport.abort()
