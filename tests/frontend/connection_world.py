"""One client connection in memory, with a gate that does what a test says."""

from __future__ import annotations

from collections.abc import Callable

from harp.frontend.connection import ClientConnection
from harp.frontend.exchange import Exchange
from harp.net.turns import Turns
from harp.settings import load
from harp.wire.http import Fields
from harp.wire.requests import RequestHead, RequestReader
from tests.fakes.clock import Clock
from tests.fakes.transport import MemoryTransport

SETTINGS = load({"HP_SHARED_KEY": "key", "NC_INSTANCE_URL": "http://cloud", "HP_MAX_HEADERS": "16"})

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"

OLD_GET = b"GET /a HTTP/1.0\r\n\r\n"


class HeldRequest:
    """A handler that notes what it gets."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: Fields | None = None
        self.lost = ""
        self.events: list[str] = []

    def body(self, data: bytes) -> None:
        self.received += data

    def body_end(self, trailers: Fields) -> None:
        self.ended = trailers

    def blocked(self) -> None:
        self.events.append("blocked")

    def drained(self) -> None:
        self.events.append("drained")

    def gone(self, reason: str) -> None:
        self.lost = reason

    def drain(self) -> bool:
        self.events.append("drain")
        return True


class ScriptedGate:
    """Answers each request with `script`, or leaves it with a HeldRequest."""

    limits = SETTINGS.limits
    timeouts = SETTINGS.timeouts
    patience = 60.0

    def __init__(self) -> None:
        self.reader = RequestReader(SETTINGS.limits.headers)
        self.clock = Clock()
        self.deadlines = self.clock.deadlines
        self.turns = Turns()
        self.draining = self.inspected = False
        self.trusted = True
        self.script: Callable[[ClientConnection, RequestHead], None] | None = None
        self.heads: list[RequestHead] = []
        self.handlers: list[HeldRequest] = []
        self.statuses: list[int] = []
        self.refusal: str | None = None

    def begin(self, connection: ClientConnection, head: RequestHead | None, last: Exchange | None) -> Exchange:
        return Exchange(head, b"id-1", connection.peer, trusted=self.trusted)

    def handle(self, connection: ClientConnection, exchange: Exchange) -> None:
        head = exchange.head
        assert head is not None
        self.heads.append(head)
        if self.script is not None:
            self.script(connection, head)
            return
        handler = HeldRequest()
        self.handlers.append(handler)
        connection.attach(handler)
        connection.resume_body()

    def finished(self, exchange: Exchange) -> None:
        self.statuses.append(exchange.status)

    def opened(self, connection: ClientConnection) -> str | None:
        return self.refusal

    def closed(self, connection: ClientConnection) -> None:
        pass

    def wait(self, seconds: float) -> None:
        self.clock.move(seconds)


class ConnectionWorld:
    """One connection with its transport and gate."""

    def __init__(self, *, secure: bool = False) -> None:
        self.gate = ScriptedGate()
        self.wire = MemoryTransport(half_close=not secure)
        self.connection = ClientConnection(self.gate, secure=secure)
        self.connection.connection_made(self.wire)

    def feed(self, data: bytes) -> bytes:
        self.connection.data_received(data)
        return self.wire.take()

    @property
    def handler(self) -> HeldRequest:
        return self.gate.handlers[-1]

    def respond(self, body: bytes = b"ok", length: int = 2, fields: bytes = b"", *, end: bool = True) -> bytes:
        declared = b"content-length: %d\r\n" % length if length >= 0 else b""
        self.connection.send_head(200, b"HTTP/1.1 200 OK\r\n" + fields + declared, length, body, end)
        return self.wire.take()


def respond_ok(connection: ClientConnection, head: RequestHead) -> None:
    connection.attach(HeldRequest())
    connection.send_head(200, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", 2, b"ok", True)


ID = b"x-request-id: id-1\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + ID + b"\r\nok"
