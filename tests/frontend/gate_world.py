"""A gate with facts that tests set, and clients that speak to it."""

from __future__ import annotations

import asyncio
from io import BytesIO
from itertools import count
from typing import Any

import msgspec

from harp.frontend.access import AccessLog
from harp.frontend.books import Books
from harp.frontend.connection import ClientConnection
from harp.frontend.gate import Gate
from harp.logs import RareWarnings
from harp.net.deadlines import NEVER
from harp.policy.decide import rules_from
from harp.policy.exapp import ExApp, Level, RecordFact, Route, UnknownApp, Visitor, VisitorFact
from harp.policy.question import VisitorLogin
from harp.settings import load
from tests.fakes.clock import Clock
from tests.fakes.transport import MemoryTransport
from tests.fakes.waiting import settled
from tests.fakes.world import ScriptedExApps

KEY = "a-shared-key-for-tests"

ENV = {"HP_SHARED_KEY": KEY, "NC_INSTANCE_URL": "http://cloud"}

ROUTES = (
    Route("^/public", Level.PUBLIC),
    Route("^/login", Level.PUBLIC, frozenset({401})),
    Route("^/user", Level.USER),
)

HELLO = ExApp("hello", "token", "1.2.3", "127.0.0.1", 23001, ROUTES)

DIRECT = ExApp("direct", "token", "1.0", "direct-host", 8080, ROUTES)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class FakeInstance:
    """Knows what the test says; facts in `later` have to be fetched."""

    def __init__(self, rules_env: dict[str, str]) -> None:
        self.rules = rules_from(load(rules_env))
        self.known: dict[str, RecordFact] = {"hello": HELLO, "direct": DIRECT}
        self.later: dict[str, RecordFact] = {}
        self.who: VisitorFact | None = None
        self.who_later: VisitorFact = Visitor("alice", Level.USER)
        self.ban = 0.0
        self.strikes: list[tuple[str, str]] = []
        self.failed: list[str] = []
        self.fetched: list[str] = []
        self.asked: list[str] = []  # for records
        self.gate = asyncio.Event()
        self.gate.set()
        self.digested = 0  # how often credentials were read
        self.until = NEVER  # what is known of visitors is good
        self.settled = False  # nothing changes while the test goes on
        self._versions = count(1)

    @property
    def version(self) -> int:
        return 0 if self.settled else next(self._versions)

    def banned(self, address: str) -> float:
        return self.ban

    def record(self, app_id: str) -> RecordFact | None:
        self.asked.append(app_id)
        return self.known.get(app_id)

    def visitor(self, digest: bytes) -> VisitorFact | None:
        return self.who

    def expects(self, target: bytes) -> bool:
        return False

    def lasting(self, digest: bytes) -> float:
        return self.until if digest else NEVER

    def digest(self, cookie: bytes, authorization: bytes | None) -> bytes:
        self.digested += 1
        return cookie + (authorization or b"")

    async def record_of(self, app_id: str, source: str = "") -> RecordFact:
        self.fetched.append(app_id)
        await self.gate.wait()
        return self.later.get(app_id, UnknownApp())

    async def visitor_of(
        self,
        app_id: str,
        digest: bytes,
        login: VisitorLogin,
        address: str,
        source: str = "",
        patience: float | None = None,
    ) -> VisitorFact:
        self.fetched.append(f"visitor from {address}" if patience is None else f"visitor, within {patience:g} s")
        await self.gate.wait()
        return self.who_later

    def strike(self, ban_key: str, reason: str, proxy_key: str = "") -> None:
        self.strikes.append((ban_key, reason))
        if proxy_key:
            self.strikes.append((proxy_key, reason))

    def connection_failed(self, app_id: str) -> None:
        self.failed.append(app_id)


class GateWorld:
    def __init__(self, peer: str = "8.8.4.4", *, clock: Clock | None = None, access: str = "all", **env: str) -> None:
        environment = {**ENV, **env}
        self.settings = load(environment)
        self.instance = FakeInstance(environment)
        self.exapps = ScriptedExApps(self.settings.timeouts, clock)
        self.dialer = self.exapps.dialer
        self.deadlines = self.exapps.deadlines
        self.log = BytesIO()
        self.books = Books(AccessLog(access, json=True, stream=self.log), RareWarnings(lambda: self.deadlines.now))
        self.gate = Gate(self.settings, self.instance, self.exapps.upstreams, self.deadlines, self.books)
        self.peer = peer
        self.wire, self.connection = self.connect()

    def connect(self) -> tuple[MemoryTransport, ClientConnection]:
        wire = MemoryTransport((self.peer, 4000))
        connection = ClientConnection(self.gate, secure=False)
        connection.connection_made(wire)
        return wire, connection

    async def ask(self, path: str = "/exapps/hello/public", lines: str = "") -> bytes:
        """Send a GET; gives what came back so far."""
        request = f"GET {path} HTTP/1.1\nHost: cloud.example\n{lines}\n".replace("\n", "\r\n")
        self.connection.data_received(request.encode("latin-1"))
        await settled()
        return self.wire.take()

    async def access_lines(self) -> list[dict[str, Any]]:
        """The access log so far."""
        await self.gate.close()
        return [msgspec.json.decode(line) for line in self.log.getvalue().splitlines()]

    def forwarded(self) -> list[str]:
        return self.exapps.wire().take().decode("latin-1").split("\r\n")

    def answer(self, data: bytes = OK) -> bytes:
        self.exapps.answer(data)
        return self.wire.take()
