"""A transport that only remembers: what was written, and in which state it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


class MemoryTransport(asyncio.Transport):
    """Bytes written are in `sent`. `unsent` is what it claims to have still to send."""

    def __init__(self, peer: tuple[str, int] | str = ("192.0.2.1", 40000), *, half_close: bool = True) -> None:
        super().__init__({"peername": peer})
        self.sent = b""
        self.unsent = 0
        self.reading = True
        self.eof_sent = False
        self.closed = False
        self.aborted = False
        self._half_close = half_close

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof_sent
        self.sent += bytes(data)

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
        sent, self.sent = self.sent, b""
        return sent
