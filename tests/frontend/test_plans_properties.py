"""Kept decisions change no answer: whatever is asked and whatever changes, a gate that keeps none answers the same."""

from __future__ import annotations

import asyncio
import re
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from harp.frontend.access import AccessLog
from harp.frontend.books import Books
from harp.frontend.connection import ClientConnection
from harp.frontend.gate import Gate
from harp.frontend.plans import Plans
from harp.logs import RareWarnings
from harp.nextcloud.client import Seen
from harp.nextcloud.instance import Instance
from harp.policy.exapp import ANONYMOUS, ExApp, Level, RecordFact, Route, Trouble, UnknownApp, Visitor
from harp.policy.question import VisitorLogin
from harp.settings import load
from tests.fakes.transport import MemoryTransport
from tests.fakes.waiting import turn
from tests.fakes.world import ScriptedExApps
from tests.properties import core

KEY = "a-shared-key-for-tests"
SETTINGS = load(
    {
        "HP_SHARED_KEY": KEY,
        "NC_INSTANCE_URL": "http://cloud",
        "HP_BLACKLIST_COUNT": "1",
        "HP_BLACKLIST_WINDOW": "60",
        "HP_TRUSTED_PROXY_IPS": "10.0.0.0/8",
        "HP_LOG_LEVEL": "error",
    }
)
PEERS = ["8.8.4.4", "8.8.8.8", "10.0.0.1"]
NAMED = ["", "X-Forwarded-For: 8.8.4.4\r\n", "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Prefix: /nc\r\n"]
SIGNED = f"Harp-Shared-Key: {KEY}\r\nEX-APP-ID: a\r\nEX-APP-VERSION: 1\r\nEX-APP-HOST: h\r\nEX-APP-PORT: 80\r\n"
LOGINS = [
    "",
    "Cookie: a=b\r\n",
    "Cookie: oc_sessionPassphrase=alice\r\n",
    "Cookie: oc_sessionPassphrase=bob; a=b\r\n",
    "Authorization: Basic eDp5\r\n",
    "Authorization: Bearer eDp5\r\n",
    "Harp-Shared-Key: wrong\r\n",
    f"Harp-Shared-Key: {KEY}\r\n",
    f"Harp-Shared-Key: {KEY}\r\nDocker-Engine-Port: 24000\r\n",
    SIGNED + "AUTHORIZATION-APP-API: YTpi\r\nAA-VERSION: 33\r\n",
    SIGNED + "AUTHORIZATION-APP-API:\r\nCookie: oc_sessionPassphrase=alice\r\n",
]
PATHS = [
    "/exapps/a/public",
    "/exapps/A/public",
    "/exapps/a/user/x",
    "/exapps/a/admin",
    "/exapps/a/init",
    "/exapps/a/..%2fb",
    "/exapps/b/public",
    "/a/public",
    "/nc/exapps/a/public",
    "/exapps/app_api/v1.41/_ping",
]
ROUTES = (
    Route("^/public", Level.PUBLIC, frozenset({404})),
    Route("^/user", Level.USER),
    Route("^/admin", Level.ADMIN),
)

RECORDS: list[RecordFact] = [
    ExApp("a", "secret", "1", "h", 80, ROUTES),
    ExApp("a", "secret", "1", "h", 80, ROUTES[:1]),
    ExApp("a", "secret", "1", "h", 80, (Route(".*", Level.ADMIN),)),
    ExApp("a", "other secret", "2", "h", 81, ROUTES),
    UnknownApp(),
    Trouble("down"),
]
VISITORS = [
    Seen(Visitor("alice", Level.USER), lasting=True),
    Seen(Visitor("alice", Level.ADMIN), lasting=True),
    Seen(Visitor("bob", Level.USER), lasting=True),
    Seen(ANONYMOUS, lasting=True),
    Seen(Visitor("", Level.PUBLIC, refused=True)),
    Seen(Trouble("down")),
]


class Cloud:
    """A Nextcloud that answers at once what it is told to."""

    def __init__(self) -> None:
        self.answer = RECORDS[0]
        self.seen = VISITORS[0]

    async def record(self, app_id: str, source: str) -> RecordFact:
        return self.answer if app_id == "a" else UnknownApp()

    async def visitor(self, app_id: str, login: VisitorLogin, address: str, source: str) -> Seen:
        return self.seen

    def also(self, app_id: str, source: str) -> None:
        pass

    async def close(self) -> None:
        pass


class PlansWorld:
    """One gate over a real instance, with plans or without."""

    def __init__(self, plans: int) -> None:
        self.exapps = ScriptedExApps(SETTINGS.timeouts)
        self.clock = self.exapps.clock
        self.deadlines = self.exapps.deadlines
        self.dialer = self.exapps.dialer
        self.cloud = Cloud()
        self.instance = Instance(SETTINGS, self.clock, client=self.cloud)
        books = Books(AccessLog("all", json=True, stream=BytesIO()), RareWarnings(self.clock))
        kept = Plans(self.deadlines, plans)
        self.gate = Gate(SETTINGS, self.instance, self.exapps.upstreams, self.deadlines, books, plans=kept)
        self.open: dict[str, tuple[MemoryTransport, ClientConnection]] = {}

    async def ask(self, peer: str, path: str, lines: str, status: int) -> list[str]:
        """What a GET brings about: what reaches an upstream, what the client gets, who is banned."""
        wire, connection = self._connection(peer)
        connection.data_received(f"GET {path} HTTP/1.1\r\nHost: cloud\r\n{lines}\r\n".encode())
        await self._quiet()
        upstream, protocol = self.dialer.made[-1] if self.dialer.made else (MemoryTransport(), None)
        onward = upstream.take()
        if onward and protocol is not None:
            protocol.data_received(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
        await self._quiet()
        bans = [f"{ban.address} {ban.seconds}" for ban in self.instance.bans.list()]
        return [_told(onward), _told(wire.take()), *bans]

    def _connection(self, peer: str) -> tuple[MemoryTransport, ClientConnection]:
        known = self.open.get(peer)
        if known is None or known[0].closed or known[0].eof_sent:
            wire = MemoryTransport((peer, 4000))
            connection = ClientConnection(self.gate, secure=False)
            connection.connection_made(wire)
            known = self.open[peer] = wire, connection
        return known

    async def _quiet(self) -> None:
        """Until every task that was started has ended."""
        while len(asyncio.all_tasks()) > 1:
            await turn()

    def wait(self, seconds: float) -> None:
        self.clock.move(seconds)


def _told(data: bytes) -> str:
    """Without what differs from request to request."""
    return re.sub(r"(?m)^(x-request-id|date|request id): [^\r\n]*|request id [0-9a-f-]+", "", data.decode("latin-1"))


changes = (
    st.tuples(st.just("record"), st.sampled_from(RECORDS))
    | st.tuples(st.just("visitor"), st.sampled_from(VISITORS))
    | st.tuples(st.just("push"), st.sampled_from([record for record in RECORDS if isinstance(record, ExApp)]))
    | st.tuples(st.just("delete"))
    | st.tuples(st.just("strike"), st.sampled_from(PEERS))
    | st.tuples(st.just("lift"), st.sampled_from(PEERS))
    | st.tuples(st.just("doubt"))
    | st.tuples(st.just("wait"), st.sampled_from([0.25, 2.0, 4.0, 61.0]))
)


async def take(world: PlansWorld, step: tuple[object, ...]) -> list[str]:
    match step:
        case ("ask", str(peer), str(path), str(lines), int(status)):
            return await world.ask(peer, path, lines, status)
        case ("record", ExApp() | UnknownApp() | Trouble() as record):
            world.cloud.answer = record
        case ("visitor", Seen() as seen):
            world.cloud.seen = seen
        case ("push", ExApp() as record):
            world.instance.put(record)
        case ("delete",):
            world.instance.delete("a")
        case ("strike", str(address)):
            world.instance.strike(address, "test")
        case ("lift", str(address)):
            world.instance.bans.lift(address)
        case ("doubt",):
            world.instance.connection_failed("a")
        case ("wait", float(seconds)):
            world.wait(seconds)
        case other:
            raise AssertionError(other)
    return []


def few(values: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[object, ...]]:
    """What is kept shows only where questions come back that are alike, so each story has few of them."""
    asks = st.tuples(
        st.just("ask"),
        st.sampled_from(draw(few(PEERS))),
        st.sampled_from(draw(few(PATHS))),
        st.tuples(st.sampled_from(draw(few(LOGINS))), st.sampled_from(draw(few(NAMED)))).map("".join),
        st.sampled_from([200, 200, 404]),
    )
    happening = st.sampled_from(draw(st.lists(changes, min_size=1, max_size=3)))
    return draw(st.lists(asks | asks | happening, max_size=20))


@pytest.mark.timeout(900)  # HYPOTHESIS_PROFILE=ci takes a minute
@core
@given(stories(), st.sampled_from([1, 2, 4096]))
def test_a_gate_that_keeps_decisions_answers_as_one_that_keeps_none(steps: list[tuple[object, ...]], room: int) -> None:
    async def compare() -> None:
        keeping, forgetful = PlansWorld(room), PlansWorld(0)
        for step in steps:
            assert await take(keeping, step) == await take(forgetful, step), step
        for world in (keeping, forgetful):
            await world.gate.close()
            await world.instance.close()
            world.deadlines.close()

    with capture_logs():
        asyncio.run(compare())
