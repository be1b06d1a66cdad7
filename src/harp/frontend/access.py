"""The access log: one line per request, formatted by hand and written in batches, because it is on the hot path."""

from __future__ import annotations

import asyncio
import sys
from typing import BinaryIO

import msgspec
from msgspec import Struct

from harp.logs import bytes_of, output, printable

BATCH = 64 * 1024  # bytes
DELAY = 0.5  # seconds a line may wait


class Entry(Struct):
    """One request, as it went."""

    time: str
    request_id: str
    address: str
    method: str
    path: str  # without the query, which may hold secrets
    app: str
    user: str
    status: int
    sent: int  # bytes of response body
    seconds: float
    reason: str
    event: str = "request"  # as in every other line of the log
    level: str = "info"


class AccessLog:
    """Writes entries to `stream` (default stdout) as JSON lines or text. Off: `enabled` is false."""

    def __init__(self, *, enabled: bool, json: bool, stream: BinaryIO | None = None) -> None:
        self.enabled = enabled
        self._format = msgspec.json.encode if json else _text
        self._stream = output(stream or bytes_of(sys.stdout), json=json)
        self._lines: list[bytes] = []
        self._size = 0
        self._handle: asyncio.TimerHandle | None = None

    def write(self, entry: Entry) -> None:
        """Note one request; it reaches the stream within DELAY seconds."""
        line = self._format(entry)
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BATCH:
            self.flush()
        elif self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(DELAY, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._lines:
            self._stream.write(b"\n".join(self._lines) + b"\n")
            self._stream.flush()
            self._lines.clear()
            self._size = 0


def _text(entry: Entry) -> bytes:
    who = f" user={entry.user}" if entry.user else ""
    app = f" app={entry.app}" if entry.app else ""
    line = (
        f"{entry.time} [request ] {entry.status} {entry.method} {entry.path} {entry.address}{app}{who}"
        f" {entry.sent}B {entry.seconds * 1000:.1f}ms id={entry.request_id}: {entry.reason}"
    )
    return printable(line).encode(errors="backslashreplace")
