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
    peer: str = ""  # the other end of the connection: the reverse proxy, if there is one
    counted: str = ""  # the address that strikes count on, as bans name it
    verdict: str = ""  # "forward", "signed", "control", "engine", "refuse", "banned"; "" = it did not come to one
    received: int = 0  # bytes of request body
    first_byte: float | None = None  # seconds until the answer began
    waits: dict[str, float] = {}  # seconds by what was waited for: "nextcloud", "tunnel", "connect"
    event: str = "request"  # as in every other line of the log
    level: str = "info"


class EntryOfInstance(Entry):
    """The same, where there are several Nextclouds."""

    instance: str = ""


class AccessLog:
    """Writes entries to `stream` (default stdout) as JSON lines or text. What is written is the caller's choice.

    `every` request, or `errors`: 4xx, 5xx and answers that were cut short. Both may be changed at any time.
    """

    def __init__(self, mode: str, *, json: bool, stream: BinaryIO | None = None) -> None:
        """`mode` is "off", "errors" or "all"."""
        self.every = self.errors = False
        self.choose(mode)
        self._format = msgspec.json.encode if json else _text
        self._stream = output(stream or bytes_of(sys.stdout), json=json)
        self._lines: list[bytes] = []
        self._size = 0
        self._handle: asyncio.TimerHandle | None = None

    @property
    def mode(self) -> str:
        """What is written now."""
        return "all" if self.every else "errors" if self.errors else "off"

    def choose(self, mode: str) -> None:
        """Write "off", "errors" or "all" from now on."""
        self.every, self.errors = mode == "all", mode == "errors"

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
    if isinstance(entry, EntryOfInstance):
        app = f" instance={entry.instance}{app}"
    verdict = f" {entry.verdict}" if entry.verdict not in ("", "forward") else ""
    peer = f" peer={entry.peer}" if entry.peer != entry.address else ""
    counted = f" counted={entry.counted}" if entry.counted != entry.address else ""
    waits = "".join(f" {what}={seconds * 1000:.1f}ms" for what, seconds in entry.waits.items())
    line = (
        f"{entry.time} [request ] {entry.status} {entry.method} {entry.path} {entry.address}"
        f"{peer}{counted}{app}{who}{verdict} {entry.received}B>{entry.sent}B {entry.seconds * 1000:.1f}ms{waits}"
        f" id={entry.request_id}: {entry.reason}"
    )
    return printable(line).encode(errors="backslashreplace")
