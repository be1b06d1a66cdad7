"""Two transports joined: each sends what the other receives, at the pace of the slower one."""

from __future__ import annotations

import asyncio
from typing import cast


class Relay(asyncio.Protocol):
    """One end of a pair. Half-closes are passed on; when one end is lost the other is closed, or aborted with it.

    Reading starts with the pair. What arrives before, because a loop reads once all the same, is kept for it: after
    one piece the transport is paused, so it is no more than a read or two.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Relay | None = None
        self.sent = 0  # bytes that this end was given to send
        self.ended = False  # this end has finished sending
        self._early = b""  # received before there was a pair

    def join(self, other: Relay) -> None:
        """Pair two connected ends, and begin."""
        assert self.transport is not None
        assert other.transport is not None
        self.other, other.other = other, self
        for end in (self, other):
            end._begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's TLS transports do not derive from it
        self.transport.pause_reading()  # uvloop starts reading after this call in any case

    def data_received(self, data: bytes) -> None:
        other = self.other
        if other is None:
            self._early += data
            if self.transport is not None:
                self.transport.pause_reading()
        elif other.transport is not None:
            other.sent += len(data)
            other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.other is None:
            return not self._lost()  # passed on with the pair
        return self._pass_end()

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

    def _lost(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def _begin(self) -> None:
        """The pair is made: pass on what was early, and read."""
        other = self.other
        if other is None or other.transport is None or self.transport is None:
            return
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)
        if self._lost():
            other.transport.close()
        elif self.ended:
            if not self._pass_end():
                self.transport.close()
        else:
            self.transport.resume_reading()

    def _pass_end(self) -> bool:
        """False: there is nothing left that this end could receive."""
        other = self.other
        if other is None or other.transport is None or other.ended or not other.transport.can_write_eof():
            return False
        other.transport.write_eof()
        return True
