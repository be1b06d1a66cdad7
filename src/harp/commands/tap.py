"""A tap on connections to a program: every byte is passed on unchanged, and each request is recorded when it ends.

For `harp dev` over a tunnel, where the HaRP that decides is elsewhere. Traffic that is not HTTP/1.1 passes unrecorded.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools

from harp.errors import words_of
from harp.status.redaction import query_names
from harp.status.snapshot import RequestLine
from harp.tunnel.relay import Relay

CONNECT = 10.0  # seconds for the program to accept
BACKLOG = 512  # connections that wait to be accepted
MOST_PENDING = 64  # requests of one connection without an answer
SWITCHING, FINAL = 101, 200  # statuses: of a connection that is upgraded, and the first that ends a request
OF_INTEREST = frozenset((b"authorization-app-api", b"x-forwarded-for", b"x-request-id"))

Noted = Callable[[RequestLine], None]


@dataclass(slots=True)
class _Asked:
    """A request, as far as it has been read."""

    method: str = "-"
    target: str = ""
    headers: dict[bytes, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    first_byte: float | None = None
    received: int = 0
    sent: int = 0
    status: int = 0


class Tap:
    """Listens on a unix socket and connects to a program. `noted` gets each request when it has ended."""

    def __init__(self, app: str, host: str, port: int, noted: Noted) -> None:
        self._app, self._host, self._port = app, host, port
        self._noted = noted
        self._server: asyncio.Server | None = None
        self._joining: set[asyncio.Task[None]] = set()
        self._number = 0

    async def start(self, path: Path) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Arrived(self._arrived), str(path), backlog=BACKLOG)

    def close(self) -> None:
        """Stop accepting connections; existing ones end with their peers."""
        if self._server is not None:
            self._server.close()
        for task in list(self._joining):
            task.cancel()

    def _arrived(self, end: _Arrived) -> None:
        task = asyncio.get_running_loop().create_task(self._join(end))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _join(self, end: _Arrived) -> None:
        """Connect the program."""
        exchanges = _Exchanges(self._over)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT):
                _, program = await loop.create_connection(
                    lambda: _End(exchanges.answered, exchanges.lost), self._host, self._port
                )
        except (OSError, TimeoutError) as error:
            why = f"no answer within {CONNECT:g} s" if isinstance(error, TimeoutError) else words_of(error)
            self._over(_Asked(), f"{self._host}:{self._port}: {why}")
            if end.transport is not None:
                end.transport.abort()
            return
        end.seen = exchanges.asked
        end.join(program)

    def _over(self, asked: _Asked, reason: str = "") -> None:
        self._number += 1
        now = time.monotonic()
        path, _, query = asked.target.partition("?")
        line = RequestLine(
            number=self._number,
            ended=time.time(),
            request_id=asked.headers.get(b"x-request-id", ""),
            method=asked.method,
            path=path,
            query=query_names(f"?{query}".encode("latin-1")) if query else "",
            app=self._app,
            user=_user(asked.headers.get(b"authorization-app-api", "")),
            address=asked.headers.get(b"x-forwarded-for", "").partition(",")[0] or "-",
            peer="",
            verdict="",
            rule="",
            status=asked.status,
            received=asked.received,
            sent=asked.sent,
            seconds=now - asked.started,
            reason=reason,
            refused=bool(reason),
            first_byte=asked.first_byte,
            waits={},
            request=(),
            answer=(),
        )
        self._noted(line)


class _End(Relay):
    """One end of a watched connection: `seen` gets the bytes, `gone` is called at its end."""

    def __init__(self, seen: Callable[[bytes], None] | None = None, gone: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.seen = seen
        self._gone = gone

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.seen is not None:  # what is early comes again
            self.seen(data)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._gone is not None:
            self._gone()
        super().connection_lost(exc)


class _Arrived(_End):
    """The end that the tunnel client has connected."""

    def __init__(self, arrived: Callable[[_Arrived], None]) -> None:
        super().__init__()
        self._arrived = arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._arrived(self)


class _Exchanges:
    """Reads both directions of one connection, and reports which requests have ended."""

    def __init__(self, over: Callable[[_Asked], None]) -> None:
        self._over = over
        self._pending: deque[_Asked] = deque()  # the first one is being answered
        self._deaf = False  # it is not HTTP any more, or never was
        asking = _Asking(self._pending)
        self._requests = asking.parser = httptools.HttpRequestParser(asking)
        self._fresh()

    def asked(self, data: bytes) -> None:
        """Read what the client sends."""
        with suppress(httptools.HttpParserUpgrade):  # whether it is upgraded, the answer says
            self._read(self._requests, data)

    def answered(self, data: bytes) -> None:
        """Read what the program sends."""
        try:
            self._read(self._responses, data)
        except httptools.HttpParserUpgrade:
            self._deaf = True
        if self._answering.bodiless:
            self._fresh()

    def lost(self) -> None:
        """The program has closed: that ends an answer without a length, and an upgraded connection."""
        if self._pending:
            self._over(self._pending.popleft())

    def _read(self, parser: Any, data: bytes) -> None:
        self._deaf = self._deaf or len(self._pending) > MOST_PENDING
        if not self._deaf:
            try:
                parser.feed_data(data)
            except httptools.HttpParserError:
                self._deaf = True

    def _fresh(self) -> None:
        self._answering = _Answering(self._pending, self._over)
        self._responses = self._answering.parser = httptools.HttpResponseParser(self._answering)


class _Asking:
    """What httptools calls for requests."""

    parser: Any

    def __init__(self, pending: deque[_Asked]) -> None:
        self._pending = pending
        self._asked = _Asked()

    def on_message_begin(self) -> None:
        self._asked = _Asked()

    def on_url(self, url: bytes) -> None:
        self._asked.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in OF_INTEREST:
            self._asked.headers[name.lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._asked.method = self.parser.get_method().decode("latin-1")
        self._pending.append(self._asked)

    def on_body(self, body: bytes) -> None:
        self._asked.received += len(body)


class _Answering:
    """What httptools calls for responses."""

    parser: Any

    def __init__(self, pending: deque[_Asked], over: Callable[[_Asked], None]) -> None:
        self._pending = pending
        self._over = over
        self.bodiless = False  # it cannot know that the request was a HEAD, and waits for a body

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if self._pending and (status == SWITCHING or status >= FINAL):
            asked = self._pending[0]
            asked.status, asked.first_byte = status, time.monotonic() - asked.started
            if asked.method == "HEAD":
                self.bodiless = True
                self._over(self._pending.popleft())

    def on_body(self, body: bytes) -> None:
        if self._pending:
            self._pending[0].sent += len(body)

    def on_message_complete(self) -> None:
        if self._pending and self._pending[0].status >= FINAL and not self.bodiless:
            self._over(self._pending.popleft())


def _user(identity: str) -> str:
    """Return the user that HaRP names to the ExApp; "" = nobody."""
    try:
        return b64decode(identity, validate=True).decode().partition(":")[0]
    except (Base64Error, UnicodeDecodeError):
        return ""
