"""From a request to its hop or its refusal, with the facts and strikes that belong to it."""

from __future__ import annotations

import asyncio
from io import BytesIO
from itertools import count
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from harp.errors import Unreachable
from harp.frontend.access import AccessLog
from harp.frontend.books import Books
from harp.frontend.connection import ClientConnection
from harp.frontend.gate import CONTROL, Gate
from harp.logs import RareWarnings
from harp.net.deadlines import Deadlines
from harp.net.ports import PortTable
from harp.net.targets import ExAppAddress, ExAppTunnel
from harp.policy.decide import rules_from
from harp.policy.exapp import ExApp, Level, RecordFact, Route, Trouble, UnknownApp, Visitor, VisitorFact
from harp.policy.question import Login
from harp.proxy.upstreams import Upstreams
from harp.settings import load
from tests.fakes.clock import Clock
from tests.fakes.dialer import ScriptedDialer
from tests.fakes.transport import MemoryTransport

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

    def digest(self, cookie: bytes, authorization: bytes | None) -> bytes:
        return cookie + (authorization or b"")

    async def record_of(self, app_id: str, source: str = "") -> RecordFact:
        self.fetched.append(app_id)
        await self.gate.wait()
        return self.later.get(app_id, UnknownApp())

    async def visitor_of(
        self,
        app_id: str,
        digest: bytes,
        login: Login,
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


class World:
    def __init__(self, peer: str = "8.8.4.4", *, clock: Clock | None = None, access: str = "all", **env: str) -> None:
        environment = {**ENV, **env}
        self.settings = load(environment)
        self.instance = FakeInstance(environment)
        self.dialer = ScriptedDialer()
        self.deadlines = Deadlines(clock=clock)
        self.log = BytesIO()
        proxy = Upstreams(self.dialer, PortTable(), self.deadlines, self.settings.timeouts)
        self.books = Books(AccessLog(access, json=True, stream=self.log), RareWarnings(lambda: self.deadlines.now))
        self.gate = Gate(self.settings, self.instance, proxy, self.deadlines, self.books)
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
        for _ in range(8):
            await asyncio.sleep(0)
        return self.wire.take()

    async def access_lines(self) -> list[dict[str, Any]]:
        """The access log so far."""
        await self.gate.close()
        return [msgspec.json.decode(line) for line in self.log.getvalue().splitlines()]

    def forwarded(self) -> list[str]:
        return self.dialer.made[-1][0].take().decode("latin-1").split("\r\n")

    def answer(self, data: bytes = OK) -> bytes:
        self.dialer.made[-1][1].data_received(data)
        return self.wire.take()


async def test_a_request_reaches_its_exapp_with_the_identity_it_trusts() -> None:
    world = World()
    await world.ask("/exapps/hello/public/x?q=1", "Accept: */*\n")
    lines = world.forwarded()
    assert world.dialer.targets == [ExAppTunnel(23001, "hello")]
    assert lines[0] == "GET /public/x?q=1 HTTP/1.1"
    assert lines[1:3] == ["host: cloud.example", "Accept: */*"]
    assert {
        "ex-app-id: hello",
        "ex-app-version: 1.2.3",
        "authorization-app-api: OnRva2Vu",
        "aa-version: 32",
        "x-forwarded-for: 8.8.4.4",
        "x-forwarded-proto: http",
        "x-forwarded-host: cloud.example",
        "x-forwarded-prefix: /exapps/hello",
    } < set(lines)
    assert [line for line in lines if line.startswith("x-request-id: ")]
    assert len(lines) == 14
    assert world.answer().endswith(b"\r\n\r\nok")


async def test_a_direct_exapp_is_reached_by_its_host() -> None:
    world = World()
    await world.ask("/exapps/direct/public")
    assert world.dialer.targets == [ExAppAddress("direct-host", 8080)]


async def test_what_a_stranger_says_about_forwarding_is_dropped() -> None:
    world = World()
    await world.ask(
        lines="X-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: https\nX-Forwarded-Host: evil\n"
        "X-Forwarded-Prefix: /evil\nX-Request-Id: evil\nX-Real-Ip: evil\nForwarded: for=evil\nProxy: evil\n"
        "X-Forwarded-Port: evil\nX-Forwarded-Ssl: evil\nX-Forwarded-Server: evil\nX-Origin-Ip: evil\n"
        "AA-Request-Id: evil\nX_Origin_Ip: evil\n"
    )
    text = "\n".join(world.forwarded())
    assert "evil" not in text
    assert "1.1.1.1" not in text
    assert "x-forwarded-proto: http\n" in text


async def test_what_a_trusted_proxy_says_is_kept_and_added_to() -> None:
    world = World(peer="10.0.0.1", HP_TRUSTED_PROXY_IPS="10.0.0.0/8")
    await world.ask(
        lines="X-Forwarded-For: 1.1.1.1, 2.2.2.2\nX-Forwarded-Proto: https\nX-Forwarded-Host: cloud.test\n"
        "X-Forwarded-Prefix: /nc\nX-Request-Id: abc-1\nX-Real-Ip: 2.2.2.2\nForwarded: for=2.2.2.2\n"
        "X-Forwarded-Port: 443\nX-Forwarded-Ssl: on\nX-Forwarded-Server: front\nX-Origin-Ip: 2.2.2.2\nProxy: evil\n"
    )
    lines = world.forwarded()
    assert {"x-forwarded-port: 443", "x-forwarded-ssl: on", "x-forwarded-server: front"} < set(lines)
    assert "x-origin-ip: 2.2.2.2" in lines
    assert "proxy: evil" not in lines
    assert "x-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.1" in lines
    assert "x-forwarded-proto: https" in lines
    assert "x-forwarded-host: cloud.test" in lines
    assert "x-forwarded-prefix: /nc/exapps/hello" in lines
    assert "x-request-id: abc-1" in lines
    assert "x-real-ip: 2.2.2.2" in lines
    assert "forwarded: for=2.2.2.2" in lines


async def test_nextclouds_request_id_is_taken_over() -> None:
    world = World(peer="127.0.0.1")
    await world.ask(lines="AA-Request-Id: nc-77\n")
    assert "x-request-id: nc-77" in world.forwarded()


async def test_the_shared_key_may_name_the_request_and_the_visitor() -> None:
    world = World()
    words = "AA-Request-Id: nc-77\nX-Origin-Ip: 203.0.113.9\nX-Forwarded-Port: 1\n"
    await world.ask(lines=f"Harp-Shared-Key: {KEY}\n{words}")
    lines = world.forwarded()
    assert {"aa-request-id: nc-77", "x-origin-ip: 203.0.113.9"} < set(lines)
    assert "x-forwarded-port: 1" not in lines


async def test_forged_forwarding_values_do_not_reach_the_exapp() -> None:
    world = World(peer="127.0.0.1")
    await world.ask(lines="X-Forwarded-Proto: gopher\nX-Forwarded-Prefix: /a b\nX-Request-Id: a b\n")
    text = "\n".join(world.forwarded())
    assert "gopher" not in text
    assert "a b" not in text


async def test_a_missing_record_is_fetched_once_and_the_request_goes_on() -> None:
    world = World()
    world.instance.known = {}
    world.instance.later = {"hello": HELLO}
    await world.ask()
    assert len(world.instance.fetched) == 1
    assert world.forwarded()[0] == "GET /public HTTP/1.1"


async def test_an_unknown_exapp_is_404() -> None:
    world = World()
    assert (await world.ask("/exapps/nope/x")).startswith(b"HTTP/1.1 404 ")


async def test_a_visitor_is_asked_for_and_named_to_the_exapp() -> None:
    world = World()
    await world.ask("/exapps/hello/user", "Cookie: oc_sessionPassphrase=x\n")
    assert "authorization-app-api: YWxpY2U6dG9rZW4=" in world.forwarded()  # alice:token


async def test_a_public_route_waits_only_briefly_to_learn_who_is_calling() -> None:
    world = World()
    await world.ask("/exapps/hello/public", "Cookie: oc_sessionPassphrase=x\n")
    assert "visitor, within 2.5 s" in world.instance.fetched
    world = World()
    await world.ask("/exapps/hello/user", "Cookie: oc_sessionPassphrase=x\n")
    assert "visitor, within 2.5 s" not in world.instance.fetched


async def test_trouble_with_nextcloud_is_503_with_the_reason() -> None:
    world = World()
    world.instance.who_later = Trouble("Nextcloud is in maintenance mode", retry_after=120)
    answer = await world.ask("/exapps/hello/user", "Cookie: oc_sessionPassphrase=x\n")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 120\r\n" in answer
    assert b"maintenance mode" not in answer
    answer = await world.ask("/exapps/hello/user", f"Cookie: oc_sessionPassphrase=x\nHarp-Shared-Key: {KEY}\n")
    assert b"maintenance mode" in answer


async def test_a_client_that_leaves_while_facts_are_fetched_is_not_answered() -> None:
    world = World()
    world.instance.gate.clear()
    world.instance.known = {}
    world.instance.later = {"hello": HELLO}
    await world.ask()
    world.connection.connection_lost(None)
    world.instance.gate.set()
    for _ in range(8):
        await asyncio.sleep(0)
    assert world.dialer.made == []
    assert world.wire.take() == b""


async def test_a_banned_client_gets_429_or_silence() -> None:
    for action, answer in (("reply", b"HTTP/1.1 429 Too Many Requests\r\n"), ("drop", b"")):
        world = World(HP_BAN_ACTION=action)
        world.instance.ban = 42.0
        got = await world.ask()
        assert got.startswith(answer)
        assert (got == b"") == (action == "drop")
        assert world.wire.aborted == (action == "drop")
        assert world.instance.strikes == []


async def test_a_wrong_key_is_a_strike_on_the_true_client() -> None:
    world = World(peer="10.0.0.1", HP_TRUSTED_PROXY_IPS="10.0.0.1")
    answer = await world.ask("/exapps/app_api/info", "Harp-Shared-Key: wrong\nX-Forwarded-For: 6.6.6.6, 198.51.100.7\n")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert [address for address, _ in world.instance.strikes] == ["198.51.100.7"]


async def test_a_control_call_goes_to_the_control_api_without_its_credentials() -> None:
    world = World()
    await world.ask(
        "/exapps/app_api/info", f"Harp-Shared-Key: {KEY}\nAuthorization: Basic eDp5\nDocker-Engine-Port: \nX-A: 1\n"
    )
    assert world.dialer.targets == [CONTROL]
    text = "\n".join(world.forwarded())
    assert text.startswith("GET /info HTTP/1.1")
    assert KEY not in text
    assert "Basic" not in text
    assert "X-A: 1" in text


@pytest.mark.parametrize(("status", "struck"), [(401, 1), (200, 0), (302, 0), (500, 0), (403, 0)])
async def test_a_client_error_that_the_route_lists_is_a_strike_with_that_exapp(status: int, struck: int) -> None:
    world = World()
    await world.ask("/exapps/hello/login")
    world.answer(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
    assert [key for key, _ in world.instance.strikes] == ["8.8.4.4 (hello)"] * struck


@pytest.mark.parametrize("method", ["TRACE", "TRACK"])
async def test_methods_that_echo_a_request_are_refused_to_everybody(method: str) -> None:
    for lines in ("", f"Harp-Shared-Key: {KEY}\n"):
        world = World()
        request = f"{method} /exapps/hello/public HTTP/1.1\nHost: x\n{lines}\n".replace("\n", "\r\n")
        world.connection.data_received(request.encode())
        # The parser does not know TRACK; either way nothing reaches the ExApp.
        assert world.wire.take().startswith(b"HTTP/1.1 405 " if method == "TRACE" else b"HTTP/1.1 4")
        assert world.dialer.targets == []


async def test_nextcloud_hears_the_address_of_the_client_and_strikes_count_on_its_64() -> None:
    world = World(peer="2001:db8:1:2::7")
    await world.ask("/exapps/hello/user", "Authorization: Basic eDp5\n")
    assert world.instance.fetched == ["visitor from 2001:db8:1:2::7"]
    world.answer()
    await world.ask("/exapps/app_api/info", "Harp-Shared-Key: wrong\n")
    assert world.instance.strikes[-1][0] == "2001:db8:1:2::/64"


async def test_a_private_peer_that_names_a_client_is_struck_with_it() -> None:
    world = World(peer="172.18.0.5")
    await world.ask("/exapps/app_api/info", "Harp-Shared-Key: wrong\nX-Forwarded-For: 203.0.113.9\n")
    assert [key for key, _ in world.instance.strikes] == ["203.0.113.9", "proxy 172.18.0.5"]


async def test_what_a_neighbour_says_goes_on_and_nextclouds_request_id_from_a_caller_with_the_key() -> None:
    said = "X-Forwarded-Port: 443\nX-Forwarded-SSL: on\nX-Forwarded-Server: a\nX-Origin-IP: 1.1.1.1\n"
    world = World(peer="127.0.0.1")
    await world.ask(lines=said + "AA-Request-Id: nc-77\nProxy: evil\n")
    lines = world.forwarded()
    assert {"x-forwarded-port: 443", "x-forwarded-ssl: on", "x-origin-ip: 1.1.1.1", "aa-request-id: nc-77"} < set(lines)
    assert "proxy: evil" not in lines
    for key, ids in (("", 0), (f"Harp-Shared-Key: {KEY}\n", 1)):
        world = World()
        await world.ask(lines=said + "AA-Request-Id: nc-77\n" + key)
        text = "\n".join(world.forwarded())
        assert text.count("\naa-request-id: nc-77") == ids
        assert text.count("\nx-origin-ip: 1.1.1.1") == ids
        assert "x-forwarded-server" not in text


async def test_a_status_of_a_route_without_protection_is_no_strike() -> None:
    world = World()
    await world.ask("/exapps/hello/public")
    world.answer(b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n")
    assert world.instance.strikes == []


async def test_an_exapp_that_cannot_be_reached_is_looked_up_again() -> None:
    world = World()
    world.dialer.errors = [Unreachable("direct-host:8080: No route to host")]
    answer = await world.ask("/exapps/direct/public")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert world.instance.failed == ["direct"]


async def test_connections_of_one_address_are_limited_but_not_those_of_proxies() -> None:
    stranger = World(HP_MAX_CONNECTIONS_PER_ADDRESS="2")
    stranger.connect()
    refused, _ = stranger.connect()
    assert refused.take().startswith(b"HTTP/1.1 503 ")
    proxy = World(peer="127.0.0.1", HP_MAX_CONNECTIONS_PER_ADDRESS="2")
    proxy.connect()
    served, _ = proxy.connect()
    assert served.take() == b""


async def test_a_closed_connection_makes_room() -> None:
    world = World(HP_MAX_CONNECTIONS_PER_ADDRESS="1")
    world.connection.connection_lost(None)
    wire, _ = world.connect()
    assert wire.take() == b""


async def test_all_connections_together_are_limited() -> None:
    world = World(HP_MAX_CONNECTIONS="1")
    wire, _ = world.connect()
    assert b"all 1 connections are in use" in wire.take()


async def test_the_access_log_tells_what_happened_and_no_secret() -> None:
    world = World()
    await world.ask("/exapps/hello/public?token=secret", "Cookie: oc_sessionPassphrase=secret\n")
    world.answer()
    await world.ask("/exapps/nope/x")
    await world.gate.close()
    lines = [msgspec.json.decode(line) for line in world.log.getvalue().splitlines()]
    assert [(line["status"], line["path"], line["app"], line["user"]) for line in lines] == [
        (200, "/exapps/hello/public", "hello", "alice"),
        (404, "/exapps/nope/x", "", ""),
    ]
    assert b"secret" not in world.log.getvalue()
    assert all(line["reason"] for line in lines)


@pytest.mark.parametrize("part", [b"garbage\r\n\r\n", b"GET /exapps/hel"])
async def test_what_is_no_request_has_nothing_of_the_request_before(part: bytes) -> None:
    """Neither its id nor its time, nor the client that a proxy had named."""
    clock = Clock()
    world = World(peer="10.0.0.1", clock=clock, HP_TRUSTED_PROXY_IPS="10.0.0.0/8")
    await world.ask(lines="X-Forwarded-For: 8.8.8.8\nX-Request-Id: mine\n")
    world.answer()
    world.connection.data_received(part)
    clock.move(world.settings.timeouts.head + 1)
    world.deadlines.tick()
    assert b"mine" not in world.wire.take()
    await world.gate.close()
    good, bad = [msgspec.json.decode(line) for line in world.log.getvalue().splitlines()]
    assert (good["request_id"], good["address"]) == ("mine", "8.8.8.8")
    assert bad["request_id"] != "mine"
    assert (bad["status"] >= 400, bad["address"], bad["seconds"]) == (True, "10.0.0.1", 0.0)


async def test_the_access_log_tells_why_an_allowed_request_was_refused_all_the_same() -> None:
    world = World()
    world.dialer.errors = [Unreachable("127.0.0.1:23001: Connection refused")]
    assert b"cannot be reached" in await world.ask()
    await world.gate.close()
    (line,) = [msgspec.json.decode(line) for line in world.log.getvalue().splitlines()]
    assert line["status"] == 503
    assert line["reason"] == "ExApp hello cannot be reached: 127.0.0.1:23001: Connection refused"


async def test_a_bug_in_the_decision_is_500_and_not_a_dead_connection() -> None:
    world = World()
    world.instance.known = {"hello": "not a record"}  # type: ignore[dict-item]
    answer = await world.ask()
    assert answer.startswith(b"HTTP/1.1 500 ")


PING = f"Harp-Shared-Key: {KEY}\nAuthorization: Basic eDp5\nDocker-Engine-Port: 24000\n"


@pytest.mark.parametrize("path", ["/v1.44/_ping?x=1", "/v1.44/containers/json"])
async def test_a_call_to_an_engine_goes_to_the_control_api_as_it_came_but_for_our_credentials(path: str) -> None:
    world = World()
    await world.ask(f"/exapps/app_api{path}", PING + "Cookie: a=b\nX-Registry-Auth: e30=\n")
    assert world.dialer.targets == [CONTROL]
    sent = world.forwarded()
    assert sent[0] == f"GET /engine{path} HTTP/1.1"
    assert "docker-engine-port: 24000" in sent
    assert "X-Registry-Auth: e30=" in sent
    assert KEY not in str(sent)
    assert not [line for line in sent if line.startswith(("authorization", "cookie"))]


class Settled:
    """A world in which nothing changes by itself, with ExApps that answer at once."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        self.world = World(peer=peer)
        self.world.instance.settled = True
        self.instance = self.world.instance

    async def ask(self, lines: str = "", path: str = "/exapps/hello/user") -> str:
        """The status of a GET."""
        answer = await self.world.ask(path, lines) or self.world.answer()
        return answer.split(b" ")[1].decode()


async def test_a_caller_that_comes_back_is_decided_about_no_more_while_nothing_changes() -> None:
    settled = Settled()
    settled.instance.who = Visitor("alice", Level.USER)
    session = "Cookie: oc_sessionPassphrase=alice\n"
    assert [await settled.ask(session) for _ in range(5)] == ["200"] * 5
    assert settled.instance.asked == ["hello"]
    assert "authorization-app-api: YWxpY2U6dG9rZW4=" in settled.world.forwarded()


async def test_each_path_is_decided_by_itself() -> None:
    settled = Settled()
    assert await settled.ask(path="/exapps/hello/public") == "200"
    assert await settled.ask(path="/exapps/hello/user") == "403"
    assert await settled.ask(path="/exapps/hello/public?secret=1") == "200"
    assert settled.instance.asked == ["hello", "hello"]


async def test_a_decision_counts_for_the_first_request_of_another_connection_and_other_header_lines() -> None:
    settled = Settled()
    settled.instance.who = Visitor("alice", Level.USER)
    for number in range(5):
        settled.world.wire, settled.world.connection = settled.world.connect()
        assert await settled.ask(f"Cookie: oc_sessionPassphrase=alice\nX-Number: {number}\n") == "200"
    assert settled.instance.asked == ["hello"]


async def test_a_change_of_the_facts_counts_at_once() -> None:
    settled = Settled()
    settled.instance.who = Visitor("alice", Level.USER)
    session = "Cookie: oc_sessionPassphrase=alice\n"
    assert [await settled.ask(session) for _ in range(3)] == ["200"] * 3
    settled.instance.known["hello"] = UnknownApp()
    settled.instance.settled = False  # another version
    assert await settled.ask(session) == "404"


async def test_a_session_that_ends_counts_after_a_tick_at_the_latest() -> None:
    settled = Settled()
    settled.instance.who = Visitor("alice", Level.USER)
    session = "Cookie: oc_sessionPassphrase=alice\n"
    assert [await settled.ask(session) for _ in range(3)] == ["200"] * 3
    settled.instance.who = Visitor("", Level.PUBLIC)
    settled.world.deadlines.tick()
    assert await settled.ask(session) == "403"


@pytest.mark.parametrize("other", ["", "Cookie: oc_sessionPassphrase=bob\n", "Authorization: Basic Ym9iOng=\n"])
async def test_a_decision_about_one_caller_is_no_other_ones(other: str) -> None:
    settled = Settled()
    settled.instance.who = Visitor("alice", Level.USER)
    assert [await settled.ask("Cookie: oc_sessionPassphrase=alice\n") for _ in range(3)] == ["200"] * 3
    settled.instance.who = Visitor("", Level.PUBLIC)
    assert await settled.ask(other) == "403"


async def test_a_decision_about_one_address_is_no_other_ones() -> None:
    settled = Settled()  # a private peer: the ban key is the address it names
    assert await settled.ask("X-Forwarded-For: 1.1.1.1\n", "/exapps/hello/public") == "200"
    settled.instance.ban = 60.0
    assert await settled.ask("X-Forwarded-For: 2.2.2.2\n", "/exapps/hello/public") == "429"


async def test_a_decision_about_a_call_with_the_shared_key_is_for_that_key_alone() -> None:
    settled = Settled()
    for _ in range(2):
        assert await settled.ask(f"Harp-Shared-Key: {KEY}\n", "/exapps/hello/public") == "200"
    settled.instance.ban = 60.0
    for lines in ("", "Harp-Shared-Key: wrong\n"):
        assert await settled.ask(lines, "/exapps/hello/public") == "429"


async def test_a_strike_counts_each_time() -> None:
    settled = Settled()
    settled.instance.who = Visitor("", Level.PUBLIC, refused=True)
    for _ in range(2):
        assert await settled.ask("Authorization: Basic Ym9iOng=\n", "/exapps/hello/public") == "200"
    assert len(settled.instance.strikes) == 2


async def test_other_trusted_proxies_count_on_open_connections() -> None:
    world = World(peer="10.0.0.1", HP_TRUSTED_PROXY_IPS="10.0.0.0/8")
    world.instance.settled = True
    for proxies, expected in (("10.0.0.0/8", "1.1.1.1, 10.0.0.1"), ("192.168.0.0/16", "10.0.0.1")):
        world.gate.reload(load({**ENV, "HP_TRUSTED_PROXY_IPS": proxies}))
        await world.ask(lines="X-Forwarded-For: 1.1.1.1\n")
        assert f"x-forwarded-for: {expected}" in world.forwarded()
        world.answer()


async def test_a_bug_after_facts_were_learnt_is_500_and_not_a_request_that_waits_for_ever() -> None:
    world = World()
    world.instance.known = {}
    world.instance.later = {"hello": ExApp("hello", "token", None, "127.0.0.1", 23001, ROUTES)}  # type: ignore[arg-type]
    assert (await world.ask()).startswith(b"HTTP/1.1 500 ")


async def test_a_request_that_nobody_decides_about_in_time_is_503() -> None:
    clock = Clock()
    world = World(clock=clock)
    world.instance.known = {}
    world.instance.gate.clear()
    assert await world.ask() == b""
    clock.move(world.gate.patience + 0.1)
    world.deadlines.tick()
    assert world.wire.take().startswith(b"HTTP/1.1 503 ")
    world.instance.gate.set()
    assert (await world.ask()).startswith(b"HTTP/1.1 404 ")


async def test_an_answer_has_the_id_that_the_exapp_got() -> None:
    world = World()
    await world.ask()
    (line,) = [line for line in world.forwarded() if line.startswith("x-request-id: ")]
    assert world.answer() == OK.replace(b"\r\n\r\n", f"\r\n{line}\r\n\r\n".encode())


async def test_the_id_replaces_what_the_exapp_says_about_ids() -> None:
    world = World(peer="10.0.0.1", HP_TRUSTED_PROXY_IPS="10.0.0.0/8")
    await world.ask(lines="X-Request-Id: mine-1\n")
    told = world.answer(OK.replace(b"\r\n\r\n", b"\r\nX-Request-ID: its-own\r\nx-request-id: b\r\nA: b\r\n\r\n"))
    assert told == OK.replace(b"\r\n\r\n", b"\r\nA: b\r\nx-request-id: mine-1\r\n\r\n")


async def test_a_switch_of_protocols_has_the_id_as_well() -> None:
    world = World(peer="10.0.0.1", HP_TRUSTED_PROXY_IPS="10.0.0.0/8")
    await world.ask(lines="X-Request-Id: mine-1\nConnection: upgrade\nUpgrade: websocket\n")
    switched = world.answer(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert b"\r\nx-request-id: mine-1\r\n" in switched


async def test_an_access_line_names_the_address_that_a_ban_would_name() -> None:
    world = World(peer="127.0.0.1")
    await world.ask("/exapps/hello/user", lines="X-Forwarded-For: 192.0.2.7\n")
    (line,) = await world.access_lines()
    assert (line["address"], line["peer"], line["counted"]) == ("127.0.0.1", "127.0.0.1", "192.0.2.7")
    assert line["verdict"] == "refuse"


async def test_an_access_log_of_errors_leaves_out_what_went_well() -> None:
    world = World(access="errors")
    await world.ask()
    world.answer()
    await world.ask("/exapps/hello/user")
    assert [line["status"] for line in await world.access_lines()] == [403]


async def test_an_access_log_can_be_switched_off() -> None:
    world = World(access="off")
    await world.ask("/exapps/hello/user")
    assert await world.access_lines() == []


async def test_the_access_log_counts_the_bytes_of_both_bodies() -> None:
    world = World()
    post = b"POST /exapps/hello/public HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"
    world.connection.data_received(post)
    for _ in range(8):
        await asyncio.sleep(0)
    world.answer()
    (line,) = await world.access_lines()
    assert (line["received"], line["sent"]) == (5, 2)


async def test_an_exapp_that_is_away_is_one_warning_however_many_ask_for_it() -> None:
    world = World()
    world.dialer.errors = [Unreachable("no tunnel is connected for port 23001")] * 3
    with capture_logs() as events:
        for _ in range(3):
            assert b"503 Service Unavailable: the app or Nextcloud" in await world.ask()
    (warning,) = [event for event in events if event["log_level"] == "warning"]
    assert warning["event"] == "request not served"
    assert warning["reason"] == "ExApp hello cannot be reached: no tunnel is connected for port 23001"
    assert (warning["status"], warning["app"]) == (503, "hello")


async def test_trouble_with_nextcloud_is_a_warning() -> None:
    world = World()
    world.instance.known["hello"] = Trouble("Nextcloud cannot be reached")
    with capture_logs() as events:
        await world.ask()
    (warning,) = [event for event in events if event["log_level"] == "warning"]
    assert (warning["event"], warning["reason"]) == ("request not served", "Nextcloud cannot be reached")


async def test_a_wrong_shared_key_is_a_warning_with_the_fix_and_without_the_key() -> None:
    world = World()
    with capture_logs() as events:
        for _ in range(2):
            assert b" 401 " in await world.ask("/exapps/app_api/info", lines="harp-shared-key: not the right one\n")
    (warning,) = [event for event in events if event["log_level"] == "warning"]
    assert (warning["event"], warning["source"]) == ("shared key refused", "8.8.4.4")
    assert "HP_SHARED_KEY" in warning["fix"]
    assert "not the right one" not in str(events)


async def test_what_strangers_do_wrong_is_no_warning() -> None:
    world = World()
    with capture_logs() as events:
        await world.ask("/exapps/app_api/info")
        await world.ask("/exapps/nobody/x")
        await world.ask("/exapps/hello/user")
    assert [event for event in events if event["log_level"] == "warning"] == []


async def test_requests_are_counted_by_exapp_and_for_those_that_are_none() -> None:
    world = World()
    await world.ask()
    world.answer()
    await world.ask("/exapps/HELLO/public")
    world.answer(b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\noh!")
    await world.ask("/exapps/nobody/x")
    await world.ask("/exapps/app_api/info", lines=f"harp-shared-key: {KEY}\n")
    world.answer()
    books = world.books
    assert {app: (traffic.requests, traffic.sent) for app, traffic in books.apps.items()} == {"hello": (2, 5)}
    assert (books.control.requests, books.others.requests) == (1, 1)
    assert books.refusals == {404: 1}
