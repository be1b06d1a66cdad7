"""A proxy whose dialler, deadlines and turns a test controls, and a client that remembers."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from harp.net.ports import ProtocolFactory
from harp.net.targets import ExAppTunnel, Target, Tcp
from harp.proxy.forward import Forwarding, Hop
from harp.settings import load
from harp.wire.ends import How
from harp.wire.http import Fields
from harp.wire.requests import RequestReader
from tests.fakes.transport import MemoryTransport
from tests.fakes.waiting import settled
from tests.fakes.world import ScriptedExApps

TIMEOUTS = load({"HP_SHARED_KEY": "key", "NC_INSTANCE_URL": "http://cloud"}).timeouts
READER = RequestReader(20, remembers=False)

APP = Tcp("hello", 8080)

BEHIND_TUNNEL = ExAppTunnel(23001, "hello")

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

FirstBody: TypeAlias = tuple[bytes, bool, Fields]
NOTHING_YET: FirstBody = (b"", False, [])


class NotingClient:
    """A Downstream that notes what it is told."""

    def __init__(self, first: FirstBody = NOTHING_YET) -> None:
        self.first = first  # what has come of the body with the head, as of `first_body`
        self.blocked = False
        self.status = 0
        self.start = b""
        self.length = -99
        self.received = b""
        self.ended = False
        self.trailers: Fields = []
        self.refused = ""
        self.retry_after: int | None = None
        self.cut_for = ""
        self.flowing = False
        self.interim: list[bytes] = []
        self.finished = self.closed = False
        self.waits: list[str] = []

    def first_body(self) -> FirstBody:
        first, self.first = self.first, NOTHING_YET
        return first

    def resume_body(self) -> None:
        self.flowing = True

    def pause_body(self) -> None:
        self.flowing = False

    def waited(self, what: str, seconds: float) -> None:
        self.waits.append(what)

    def send_interim(self, response: bytes) -> None:
        self.interim.append(response)

    def send_head(self, status: int, start: bytes, length: int, data: bytes, end: bool) -> None:
        self.status, self.start, self.length, self.received, self.ended = status, start, length, data, end

    def send_answer(self, status: int, start: bytes, data: bytes) -> None:
        self.send_head(status, start, len(data), data, True)

    def send_body(self, data: bytes) -> None:
        assert not self.ended
        self.received += data

    def send_end(self, trailers: Fields) -> None:
        self.ended, self.trailers = True, trailers

    def end(self, how: How, note: str = "") -> None:
        self.closed = how is How.LINGER
        self.cut_for = note

    def refuse(self, status: int, reason: str, retry_after: int | None = None, *, unreachable: bool = False) -> None:
        self.status, self.refused, self.retry_after = status, reason, retry_after

    def upgrade(self, response: bytes, data: bytes) -> None:
        self.status, self.start, self.received = 101, response, data

    def finish(self) -> None:
        self.finished = True


class ProbedOffer:
    """A tunnel whose requests are the dialer's; what is opened through it are probes, answered while `listens`."""

    name = "hello"

    def __init__(self, *, listens: bool = True) -> None:
        self.listens = listens
        self.probes: list[MemoryTransport] = []

    async def connect(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        transport, protocol = MemoryTransport(), factory()
        assert isinstance(protocol, asyncio.Protocol)
        protocol.connection_made(transport)
        assert transport.eof_sent
        self.probes.append(transport)
        if self.listens:
            protocol.eof_received()
        return transport, protocol


class ProxyWorld(ScriptedExApps):
    """A proxy whose ExApp is the test."""

    def __init__(self) -> None:
        super().__init__(TIMEOUTS)

    async def send(
        self,
        lines: bytes = b"GET / HTTP/1.1\r\n",
        *,
        target: Target = APP,
        prefix: bytes = b"",
        first: FirstBody = NOTHING_YET,
    ) -> tuple[NotingClient, Forwarding]:
        client = NotingClient(first)
        head = READER.read(lines + b"Host: a\r\n\r\n")
        forwarding = Forwarding(
            self.upstreams, client, head, Hop(target, "ExApp hello", prefix), b"HEAD BYTES", TIMEOUTS.server
        )
        forwarding.start()
        await settled()
        return client, forwarding
