"""The FRP server, driven by a scripted client over loopback sockets (F 1.2, F 5, F 8)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
import trustme
from structlog.testing import capture_logs
from structlog.typing import EventDict

from harp.errors import TunnelAway
from harp.net.ports import PortTable
from harp.settings import Address, Settings, load
from harp.tunnel.server.claims import Claim
from harp.tunnel.server.listener import GUESTS_PER_ADDRESS, TunnelServer, address_of
from harp.tunnel.server.tunnel import Tunnel
from harp.wire import frp, yamux
from harp.wire.frp import CloseProxy, LoginResp, Ping, Pong, ReqWorkConn, StartWorkConn
from tests.tunnel.conftest import Clock
from tests.tunnel.memory import MemoryTransport, Recorder
from tests.tunnel.peer import KEY, FrpClient, Messages, good_login

T = TypeVar("T")
WRONG_KEY = "send Login request to plugin error"


@pytest.fixture(scope="module")
def settings() -> Settings:
    settings = load({"HP_SHARED_KEY": KEY, "NC_INSTANCE_URL": "http://127.0.0.1:1"})
    return replace(settings, listen=replace(settings.listen, frp=(Address("127.0.0.1", 0),)))


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as events:
        yield events
    assert KEY not in repr(events)


class World:
    """A server, its port table, and the clients of one test."""

    def __init__(self, settings: Settings, tls: ssl.SSLContext | None, clock: Clock) -> None:
        self.ports = PortTable()
        self.clock = clock
        self.asked: list[tuple[str, str]] = []
        self.server = TunnelServer(settings, self.ports, clock.deadlines, self._authenticate, tls)

    def _authenticate(self, address: str, token: str) -> str | None:
        self.asked.append((address, "the key" if token == KEY else token))
        if token == "from a banned address":
            return "banned"
        return None if token == KEY else WRONG_KEY

    def client(self, *, mux: bool = True, version: int = 1) -> FrpClient:
        return FrpClient(self.server, self.clock, mux=mux, version=version)

    async def raw(self, data: bytes = b"") -> Recorder:
        """A bare TCP connection that has sent `data`."""
        loop = asyncio.get_running_loop()
        _, end = await loop.create_connection(Recorder, "127.0.0.1", self.server.bound_ports[0])
        self.clock.transports.append(end.transport)
        end.transport.write(data)
        return end

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the loop work until `condition` holds."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)


class Start(Protocol):
    async def __call__(self, settings: Settings, tls: ssl.SSLContext | None = None) -> World: ...


@pytest.fixture
async def start(clock: Clock) -> AsyncIterator[Start]:
    """Starts servers; `tls` is then required."""
    worlds: list[World] = []

    async def begin(settings: Settings, tls: ssl.SSLContext | None = None) -> World:
        worlds.append(World(settings, tls, clock))
        await worlds[-1].server.start()
        return worlds[-1]

    yield begin
    for world in worlds:
        await world.server.close()


@pytest.fixture
async def world(settings: Settings, start: Start) -> World:
    return await start(settings)


async def closed(end: Recorder) -> bool:
    await end.until(event="lost")
    return True


def beside(work: Awaitable[T]) -> asyncio.Task[T]:
    """Let `work` go on beside the test."""

    async def run() -> T:
        return await work

    return asyncio.create_task(run())


# Login (F 5.1)


@pytest.mark.parametrize(("mux", "version"), [(True, 1), (True, 2), (False, 1), (False, 2)])
async def test_a_client_logs_in_and_is_asked_for_its_pool(world: World, mux: bool, version: int) -> None:
    client = world.client(mux=mux, version=version)
    await client.login(pool_count=2)
    assert len(client.run_id) == 16
    assert set(client.run_id) <= set("0123456789abcdef")
    (facts,) = world.server.facts()
    assert (facts.address, facts.version, facts.system) == ("127.0.0.1", "0.61.1", "linux/amd64")
    assert (facts.mux, facts.wire) == (mux, version)
    assert world.asked == [("127.0.0.1", "the key")]


async def test_the_round_trip_of_a_tunnel_is_known_at_once(world: World) -> None:
    await world.client().login()
    await world.until(lambda: world.server.facts()[0].round_trip is not None)


@pytest.mark.parametrize(("asked", "given"), [(-1, 0), (0, 0), (5, 5), (1_000_000, 5)])
async def test_the_pool_a_client_asks_for_has_a_limit(world: World, asked: int, given: int) -> None:
    client = world.client()
    assert (await client.try_login(good_login(pool_count=asked))).error == ""
    client.control.send(Ping())
    for _ in range(given):
        await client.control.next(ReqWorkConn)
    await client.control.next(Pong)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"metas": {"token": "wrong"}}, WRONG_KEY),
        ({"metas": {}}, WRONG_KEY),
        ({"metas": {"token": "from a banned address"}}, "banned"),
        ({"privilege_key": "0" * 32}, "token in login doesn't match token from configuration"),
        ({"timestamp": 1}, "token in login doesn't match token from configuration"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
async def test_a_login_is_refused_in_words_and_the_stream_closed(
    world: World, version: int, fields: dict[str, object], error: str
) -> None:
    client = world.client(version=version)
    response = await client.try_login(good_login(**fields))
    assert (response.error, response.run_id) == (error, "")
    await client.control.end.until(event="end")
    assert world.server.facts() == []


async def test_the_log_tells_a_wrong_token_in_plain_words(world: World, logged: list[EventDict]) -> None:
    await world.client().try_login(good_login(metas={"token": "wrong"}))
    assert logged[-1]["reason"] == "metadatas.token is not the shared key"


async def test_a_new_client_gets_a_run_id_of_ours_whatever_it_brings(world: World) -> None:
    for brought in ("0123456789abcdef", "x" * 65, "../\n"):
        client = world.client()
        await client.login(run_id=brought)
        assert client.run_id != brought
        assert len(client.run_id) == 16


async def test_a_client_that_comes_back_replaces_itself_and_has_its_port_at_once(world: World) -> None:
    before = world.client()
    await before.offer()
    again = world.client()
    await again.login(run_id=before.run_id)
    assert again.run_id == before.run_id
    assert world.ports.get(23001) is None
    assert (await again.claim()).error == ""
    assert before.session is not None
    await before.session.wait_closed()
    assert len(world.server.facts()) == 1


async def test_a_stranger_cannot_replace_a_tunnel_whose_run_id_he_knows(world: World) -> None:
    owner = world.client()
    await owner.offer()
    response = await world.client().try_login(good_login(run_id=owner.run_id, metas={"token": "wrong"}))
    assert response.error == WRONG_KEY
    assert world.ports.get(23001) is not None


async def test_version_2_needs_a_hello_before_the_login(world: World) -> None:
    client = world.client(version=2)
    await client.connect()
    client.control.send_raw(frp.MAGIC + frp.encode(good_login(), 2))
    assert (await client.control.next(LoginResp)).error == "missing v2 crypto negotiation"


async def test_a_hello_without_common_ground_is_answered_with_the_reason(world: World) -> None:
    client = world.client(version=2)
    await client.connect()
    hello = frp.client_hello(bytes(32), tls=False, mux=True).replace(b"aes-256-gcm", b"rot13")
    client.control.send_raw(frp.MAGIC + frp.frame(frp.FrameType.CLIENT_HELLO, hello) + frp.encode(good_login(), 2))
    answer = await client.control.next(frp.Hello)
    assert frp.check_server_hello(answer.payload) == "no supported crypto algorithm"
    await client.control.end.until(event="end")


async def test_one_connection_logs_in_once(world: World) -> None:
    client = world.client()
    await client.login()
    second = Messages(await client.stream(), 1)
    second.send(good_login())
    await second.end.until(event="end")
    assert not second.end.received
    assert len(world.server.facts()) == 1


# Before the login (F 1.2, F 8.1)


@pytest.mark.parametrize("first", [b"GET /~!frp HTTP/1.1\r\n", b"SSH-2.0", b"p\0\0"])
async def test_other_protocols_are_closed_without_an_answer(world: World, first: bytes) -> None:
    end = await world.raw(first)
    await end.until(event="lost")
    assert not end.received


async def test_a_check_that_connects_and_closes_is_not_worth_a_line(world: World, logged: list[EventDict]) -> None:
    end = await world.raw()
    await world.until(lambda: world.server.guests)
    end.transport.close()
    await world.until(lambda: not world.server.guests)
    assert logged == []


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\x17",
        b"\x16\x03\x01",
        b"o\0",
        b"FRP",
        b"\0",
        yamux.ping(0),
        yamux.window_update(1, 0, yamux.SYN) + yamux.data_header(1, 3) + b"o\0\0",
    ],
)
async def test_a_connection_without_a_login_is_closed_after_10_seconds(
    world: World, clock: Clock, first: bytes
) -> None:
    end = await world.raw(first)
    await world.until(lambda: world.server.guests)
    for _ in range(20):
        await asyncio.sleep(0.001)
    clock.move(9.5)
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert "lost" not in end.events
    clock.move(0.5)
    assert await closed(end)
    assert world.server.guests == 0


async def test_before_the_login_there_is_one_stream(world: World) -> None:
    client = world.client()
    await client.connect()
    second = await client.stream()
    await second.until(event="lost")
    assert isinstance(second.error, ConnectionResetError)
    client.control.send(good_login())
    assert (await client.control.next(LoginResp)).error == ""


@pytest.mark.parametrize(
    "first",
    [
        frp.encode(Ping(), 1),
        frp.encode(frp.NewProxy("a", remote_port=23001), 1),
        frp.V1_HEADER.pack(b"v", 2) + b"{}",
        frp.V1_HEADER.pack(b"o", 10241),
        frp.V1_HEADER.pack(b"o", 2) + b"[]",
    ],
)
async def test_another_first_message_closes_the_stream_without_an_answer(world: World, first: bytes) -> None:
    client = world.client()
    await client.connect()
    client.control.send_raw(first)
    await client.control.end.until(event="end")
    assert not client.control.end.received


async def test_connections_that_have_not_logged_in_are_counted_by_address(
    world: World, logged: list[EventDict]
) -> None:
    ends = [await world.raw() for _ in range(GUESTS_PER_ADDRESS + 1)]
    assert await closed(ends[-1])
    assert world.server.guests == GUESTS_PER_ADDRESS
    assert [event["reason"] for event in logged] == ["too many connections"]
    ends[0].transport.close()
    await world.until(lambda: world.server.guests < GUESTS_PER_ADDRESS)
    await world.client().login()


async def test_connections_have_a_limit_altogether(settings: Settings, clock: Clock, start: Start) -> None:
    world = await start(replace(settings, limits=replace(settings.limits, tunnels=2)))
    for _ in range(2):
        await world.client().login()
    end = await world.raw()
    assert await closed(end)


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def mutual(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("harp.nc").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def trusting(authority: trustme.CA, *, certificate: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    if certificate:
        authority.issue_cert("client").configure_cert(context)
    return context


@pytest.mark.parametrize("first", [b"", b"\x17"])
@pytest.mark.parametrize("mux", [True, False])
async def test_mutual_tls_with_and_without_frps_own_first_byte(
    settings: Settings, authority: trustme.CA, clock: Clock, start: Start, first: bytes, mux: bool
) -> None:
    world = await start(settings, mutual(authority))
    client = FrpClient(world.server, clock, mux=mux, tls=trusting(authority), first=first)
    await client.login()
    assert (await client.claim()).error == ""


async def test_tls_works_where_it_is_not_required(world: World) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client = FrpClient(world.server, world.clock, tls=context)
    await client.login()


async def test_a_client_without_a_certificate_is_refused_where_one_is_required(
    settings: Settings, authority: trustme.CA, clock: Clock, start: Start, logged: list[EventDict]
) -> None:
    world = await start(settings, mutual(authority))
    client = FrpClient(world.server, clock, tls=trusting(authority, certificate=False))
    with pytest.raises((AssertionError, OSError, TunnelAway)):
        await client.login()
    assert "TLS:" in logged[0]["reason"]


@pytest.mark.parametrize("first", [b"\0\1\0\1", b"o", b"w", b"FRP"])
async def test_a_plain_client_is_closed_where_tls_is_required(
    settings: Settings, authority: trustme.CA, clock: Clock, start: Start, first: bytes, logged: list[EventDict]
) -> None:
    world = await start(settings, mutual(authority))
    end = await world.raw(first)
    assert await closed(end)
    assert not end.received
    assert "transport.tls.enable" in logged[0]["reason"]
    assert logged[0]["log_level"] == "warning"


async def test_a_new_certificate_serves_new_connections(
    settings: Settings, authority: trustme.CA, clock: Clock, start: Start
) -> None:
    world = await start(settings, mutual(trustme.CA()))
    with pytest.raises((OSError, AssertionError)):
        await FrpClient(world.server, clock, tls=trusting(authority)).login()
    world.server.set_tls(mutual(authority))
    await FrpClient(world.server, clock, tls=trusting(authority)).login()


# Claims (F 5.3, F 5.4)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"proxy_type": "zzz"}, "unknown proxy type: zzz"),
        ({"proxy_type": "http"}, "type [http] not supported when vhost http port is not set"),
        ({"proxy_type": "https"}, "type [https] not supported when vhost https port is not set"),
        (
            {"proxy_type": "tcpmux"},
            "tcpmux with multiplexer httpconnect not supported because this feature is not enabled in server",
        ),
        ({"proxy_type": "udp"}, "type [udp] not supported by this server"),
        (
            {"use_encryption": True},
            "transport.useEncryption is not supported by this server, remove it from the proxy's configuration",
        ),
        (
            {"use_compression": True},
            "transport.useCompression is not supported by this server, remove it from the proxy's configuration",
        ),
        (
            {"group": "g"},
            "loadBalancer.group is not supported by this server, remove it from the proxy's configuration",
        ),
        (
            {"bandwidth_limit": "1MB", "bandwidth_limit_mode": "server"},
            "transport.bandwidthLimitMode = server is not supported by this server, remove it from the proxy's "
            "configuration",
        ),
        ({"proxy_name": ""}, "a proxy name needs 1 to 255 characters"),
        ({"proxy_name": "x" * 256}, "a proxy name needs 1 to 255 characters"),
        ({"remote_port": 0}, "no available port"),
        ({"remote_port": 22999}, "port not allowed"),
        ({"remote_port": 24000}, "port not allowed"),
        ({"remote_port": 24100}, "port not allowed"),
        ({"remote_port": -1}, "port not allowed"),
        ({"remote_port": 1 << 40}, "port not allowed"),
    ],
)
async def test_a_claim_is_refused_in_words_and_a_better_one_granted(
    world: World, fields: dict[str, Any], error: str
) -> None:
    client = world.client()
    await client.login()
    refused = await client.claim(**fields)
    assert refused == frp.NewProxyResp(str(fields.get("proxy_name", "my_app")), error=error)
    assert (await client.claim()) == frp.NewProxyResp("my_app", remote_addr=":23001")


@pytest.mark.parametrize("port", [23000, 23999, 24001, 24099])
async def test_exapps_and_engines_have_their_ports(world: World, port: int) -> None:
    client = world.client()
    await client.login()
    assert (await client.claim("x", port)).error == ""
    assert world.server.facts()[0].proxies == (("x", port),)


async def test_the_same_claim_again_is_granted_again(world: World) -> None:
    client = world.client()
    await client.offer()
    assert (await client.claim()).error == ""
    client.control.send(Ping())
    await client.control.next(Pong)


async def test_a_tunnel_has_one_claim_and_may_give_it_back(world: World) -> None:
    client = world.client()
    await client.offer()
    assert (await client.claim("other", 23002)).error == "exceed the max_ports_per_client"
    assert (await client.claim("my_app", 23002)).error == "exceed the max_ports_per_client"
    client.control.send(CloseProxy("unknown"))
    client.control.send(CloseProxy("my_app"))
    assert (await client.claim("other", 23001)).error == ""
    assert world.server.facts()[0].proxies == (("other", 23001),)


async def test_a_claim_is_offered_when_the_client_has_shown_that_it_knows(world: World) -> None:
    client = world.client()
    await client.login()
    await client.work()  # asked for before the claim
    await client.claim()
    client.control.send(Ping())
    await client.control.next(ReqWorkConn)
    await client.control.next(Pong)
    assert world.ports.get(23001) is None
    await client.work()
    await world.until(lambda: world.ports.get(23001))


async def test_a_claim_is_offered_after_a_second_without_that(world: World, clock: Clock) -> None:
    client = world.client()
    await client.login()
    await client.claim()
    assert world.ports.get(23001) is None
    clock.move(1)
    assert world.ports.get(23001) is not None


@pytest.mark.parametrize(
    ("name", "port", "error"), [("my_app", 23002, "proxy [my_app] already exists"), ("x", 23001, "port already used")]
)
async def test_what_a_living_client_holds_is_refused_to_another(world: World, name: str, port: int, error: str) -> None:
    await world.client().offer()
    other = world.client()
    await other.login()
    assert (await other.claim(name, port)).error == error
    assert world.ports.get(23001) is not None


async def test_a_dead_holder_is_evicted_and_the_claim_granted(world: World, clock: Clock) -> None:
    dead = world.client()
    await dead.offer()
    dead.freeze()
    other = world.client()
    await other.login()
    answer = beside(other.claim())
    while not answer.done():
        await asyncio.sleep(0.001)
        clock.move(0.25)
    assert answer.result().error == ""
    assert clock.now < 1005
    assert [facts.proxies for facts in world.server.facts()] == [(("my_app", 23001),)]


async def test_name_and_port_may_be_held_by_two_dead_clients(world: World, clock: Clock) -> None:
    for name, port in (("my_app", 23005), ("x", 23001)):
        dead = world.client()
        await dead.offer(name, port)
        dead.freeze()
    other = world.client()
    await other.login()
    answer = beside(other.claim())
    while not answer.done():
        await asyncio.sleep(0.001)
        clock.move(0.25)
    assert len(world.server.facts()) == 1


async def test_everything_is_free_when_the_client_is_gone(world: World) -> None:
    client = world.client()
    await client.offer()
    await world.until(lambda: world.ports.get(23001))
    client.hang_up()
    await world.until(lambda: not world.server.facts())
    assert world.ports.get(23001) is None
    assert world.ports.seen(23001)
    await world.client().offer()


async def test_the_end_of_the_control_stream_ends_the_tunnel(world: World) -> None:
    client = world.client()
    await client.offer()
    client.control.end.transport.close()
    assert client.session is not None
    await client.session.wait_closed()
    assert world.server.facts() == []


# Work streams (F 5.5, F 5.6)


@pytest.mark.parametrize(("mux", "version"), [(True, 1), (True, 2), (False, 1), (False, 2)])
async def test_a_waiting_work_stream_is_started_and_replaced(world: World, mux: bool, version: int) -> None:
    client = world.client(mux=mux, version=version)
    work = await client.offer()
    offer = await world.ports.wait(23001, 5)
    transport, user = await offer.connect(Recorder)
    assert isinstance(user, Recorder)
    transport.write(b"GET / HTTP/1.1\r\n")
    assert await work.next(StartWorkConn) == StartWorkConn("my_app")
    await client.control.next(ReqWorkConn)
    await world.until(lambda: len(work.end.received) > 30)
    await asyncio.sleep(0.01)
    assert work.rest() == b"GET / HTTP/1.1\r\n"
    work.end.transport.write(b"HTTP/1.1 200 OK\r\n")
    work.end.transport.close()
    await user.until(event="lost")
    assert user.received == b"HTTP/1.1 200 OK\r\n"
    assert user.events == ["made", "end", "lost"]


async def test_a_connection_does_not_suspend_while_a_work_stream_waits(world: World) -> None:
    client = world.client()
    await client.offer()
    offer = await world.ports.wait(23001, 5)
    with pytest.raises(StopIteration) as finished:
        offer.connect(Recorder).__await__().__next__()
    assert finished.value.value[1].events == ["made"]


async def test_connections_wait_for_work_streams_in_order(world: World) -> None:
    client = world.client()
    await client.login()
    await client.claim()
    world.clock.move(1)
    offer = world.ports.get(23001)
    assert offer is not None
    first, second = beside(offer.connect(Recorder)), beside(offer.connect(Recorder))
    await asyncio.sleep(0)
    one, two = await client.work(), await client.work()
    (await first)[0].write(b"first")
    await second
    await one.next(StartWorkConn)
    await two.next(StartWorkConn)
    await world.until(lambda: one.rest() == b"first")


async def test_work_streams_that_the_client_has_ended_are_not_used(world: World) -> None:
    client = world.client()
    work = await client.offer()
    work.end.transport.close()
    await world.until(lambda: world.server.facts()[0].streams == 2)
    offer = await world.ports.wait(23001, 5)
    transport, _ = await offer.connect(Recorder)
    assert not transport.is_closing()


async def test_a_client_that_gives_no_work_stream_is_waited_for_10_seconds(world: World, clock: Clock) -> None:
    client = world.client()
    await client.login()
    await client.claim()
    clock.move(1)
    offer = world.ports.get(23001)
    assert offer is not None
    waiting = beside(offer.connect(Recorder))
    await asyncio.sleep(0)
    clock.move(9.5)
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.move(0.5)
    with pytest.raises(TunnelAway, match="no work stream within 10 s"):
        await waiting


async def test_a_tunnel_that_ends_fails_those_who_wait_for_it(world: World, clock: Clock) -> None:
    client = world.client()
    await client.login()
    await client.claim()
    clock.move(1)
    offer = world.ports.get(23001)
    assert offer is not None
    waiting = beside(offer.connect(Recorder))
    await asyncio.sleep(0)
    client.hang_up()
    with pytest.raises(TunnelAway, match="the tunnel was closed"):
        await waiting
    with pytest.raises(TunnelAway, match="the tunnel was closed"):
        await offer.connect(Recorder)


async def test_a_work_stream_for_somebody_who_has_gone_is_kept_for_the_next(world: World, clock: Clock) -> None:
    client = world.client()
    await client.login(pool_count=0)
    await client.claim()
    clock.move(1)
    offer = world.ports.get(23001)
    assert offer is not None
    waiting = beside(offer.connect(Recorder))
    await asyncio.sleep(0)
    assert isinstance(offer, Claim)
    assert isinstance(offer.tunnel, Tunnel)
    work = MemoryTransport(1000)
    offer.tunnel.add_work(work, 1)
    waiting.cancel()
    transport, _ = await offer.connect(Recorder)
    assert transport is work
    assert waiting.cancelled()


async def test_a_pool_that_is_full_takes_no_more(world: World) -> None:
    client = world.client()
    await client.login(pool_count=1)
    works = [await client.work() for _ in range(12)]
    await works[-1].end.until(event="end")
    assert all(work.end.events == ["made"] for work in works[:11])


@pytest.mark.parametrize("mux", [True, False])
async def test_a_work_stream_with_another_run_id_is_refused(world: World, mux: bool) -> None:
    victim, client = world.client(), world.client(mux=mux)
    await victim.login()
    await client.login()
    for run_id in (victim.run_id, "unknown", ""):
        work = await client.work(run_id)
        assert "no client control" in (await work.next(StartWorkConn)).error
        await work.end.until(event="end")


async def test_a_client_that_speaks_on_a_waiting_work_stream_loses_it(world: World) -> None:
    client = world.client()
    work = await client.offer()
    work.send_raw(b"too early")
    await work.end.until(event="lost")


async def test_an_aborted_download_resets_the_stream_and_leaves_nothing(world: World) -> None:
    client = world.client()
    work = await client.offer()
    offer = await world.ports.wait(23001, 5)
    transport, _ = await offer.connect(Recorder)
    await work.next(StartWorkConn)
    work.end.transport.write(bytes(1 << 20))
    transport.abort()
    await work.end.until(event="lost")
    await world.until(lambda: world.server.facts()[0].streams == 2)


async def test_streams_of_a_tunnel_have_a_limit(settings: Settings, start: Start) -> None:
    world = await start(replace(settings, limits=replace(settings.limits, tunnel_streams=3)))
    client = world.client()
    await client.login()
    works = [await client.work() for _ in range(3)]
    await works[-1].end.until(event="lost")
    assert works[0].end.events == ["made"]


async def test_a_stream_without_a_first_message_is_ended_and_the_tunnel_lives(world: World, clock: Clock) -> None:
    client = world.client()
    await client.login()
    silent = await client.stream()
    await world.until(lambda: world.server.facts()[0].streams == 2)
    clock.move(10)
    await silent.until(event="end")
    client.control.send(Ping())
    await client.control.next(Pong)


async def test_work_connections_without_yamux_are_no_guests(world: World) -> None:
    client = world.client(mux=False)
    await client.offer()
    await world.until(lambda: world.server.facts()[0].streams == 2)
    assert world.server.guests == 0


# The control connection (F 5.7)


async def test_pings_are_answered_and_messages_without_a_use_ignored(world: World) -> None:
    client = world.client()
    await client.login()
    client.control.send_raw(frp.V1_HEADER.pack(b"n", 2) + b"{}")
    client.control.send(Ping())
    await client.control.next(Pong)


@pytest.mark.parametrize("garbage", [b"x", frp.V1_HEADER.pack(b"p", 2) + b"[]"])
async def test_garbage_on_the_control_connection_ends_the_tunnel(world: World, garbage: bytes) -> None:
    client = world.client()
    await client.login()
    client.control.send_raw(garbage)
    await client.control.end.until(event="lost")
    assert world.server.facts() == []


async def test_a_client_that_does_not_read_its_control_connection_is_dropped(world: World) -> None:
    client = world.client()
    await client.login()
    client.control.end.transport.pause_reading()
    ping = frp.encode(Ping(), 1)
    for _ in range(40):
        client.control.send_raw(ping * 1000)
        await asyncio.sleep(0)
    await client.control.end.until(event="lost")
    assert world.server.facts() == []


async def test_a_claim_of_a_tunnel_that_ended_meanwhile_is_never_offered(world: World, clock: Clock) -> None:
    client = world.client()
    await client.login()
    await client.claim()
    client.hang_up()
    await world.until(lambda: not world.server.facts())
    clock.move(2)
    assert world.ports.get(23001) is None
    assert not world.ports.seen(23001)


async def test_a_client_without_yamux_must_say_something_within_90_seconds(world: World, clock: Clock) -> None:
    client = world.client(mux=False)
    await client.login()
    for _ in range(3):
        clock.move(89)
        client.control.send(Ping())
        await client.control.next(Pong)
    clock.move(90)
    assert world.server.facts() == []
    await client.control.end.until(event="lost")


async def test_a_client_without_yamux_whose_ping_is_overdue_gives_way(world: World, clock: Clock) -> None:
    quiet = world.client(mux=False)
    await quiet.login()
    await quiet.claim()
    other = world.client()
    await other.login()
    assert (await other.claim()).error == "proxy [my_app] already exists"
    clock.move(36)
    third = world.client()
    await third.login()
    assert (await third.claim()).error == ""


async def test_the_log_names_facts_and_shows_neither_run_id_nor_control_characters(
    world: World, logged: list[EventDict]
) -> None:
    client = world.client()
    await client.login(version="1\x1b[31m\nx")
    await client.claim("evil\nname", 23001)
    client.hang_up()
    await world.until(lambda: not world.server.facts())
    assert [event["event"] for event in logged] == ["tunnel connected", "tunnel claim", "tunnel closed"]
    shown = repr([list(event.values()) for event in logged])
    assert client.run_id not in shown
    assert logged[0]["client"] == r"1\x1b[31m\nx"
    assert logged[1]["name"] == r"evil\nname"


# Start and end


async def test_an_address_in_use_is_reported(settings: Settings, clock: Clock) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        addresses = (Address("127.0.0.1", 0), Address("127.0.0.1", port))
        world = World(replace(settings, listen=replace(settings.listen, frp=addresses)), None, clock)
        with pytest.raises(Exception, match=f"cannot listen on 127.0.0.1:{port}"):
            await world.server.start()
        assert world.server.bound_ports == []


async def test_a_server_that_does_not_accept_keeps_its_tunnels(world: World) -> None:
    client = world.client()
    await client.offer()
    port = world.server.bound_ports[0]
    world.server.stop_accepting()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.get_running_loop().create_connection(Recorder, "127.0.0.1", port)
    offer = await world.ports.wait(23001, 5)
    await offer.connect(Recorder)


async def test_closing_ends_tunnels_and_guests(world: World) -> None:
    client, bare, guest = world.client(), world.client(mux=False), await world.raw()
    await client.login()
    await bare.login()
    await world.server.close()
    await guest.until(event="lost")
    await bare.control.end.until(event="lost")
    await client.control.end.until(event="lost")
    assert world.server.facts() == []
    assert world.server.guests == 0


async def test_a_unix_socket_can_be_listened_on(settings: Settings, start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "frp.sock")
    world = await start(replace(settings, listen=replace(settings.listen, frp=(Address("", 0, path),))))
    _, end = await asyncio.get_running_loop().create_unix_connection(Recorder, path)
    world.clock.transports.append(end.transport)
    end.transport.write(frp.encode(good_login(), 1))
    assert (await Messages(end, 1).next(LoginResp)).error == ""
    assert world.asked == [("", "the key")]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.1", 5000), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5000, 0, 0), "192.0.2.1"),
        (("2001:db8::1", 5000, 0, 0), "2001:db8::1"),
        ("", ""),
    ],
)
def test_a_client_is_known_by_its_address_without_port(peer: object, address: str) -> None:
    assert address_of(peer) == address


# HP_TUNNEL_LISTEN


def free_port() -> int:
    for port in range(23900, 24000):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no free port")


@pytest.fixture
async def listening(settings: Settings, start: Start) -> World:
    return await start(replace(settings, tunnel=replace(settings.tunnel, listen=True)))


async def test_a_claimed_port_can_be_opened_on_loopback_while_it_is_claimed(listening: World) -> None:
    client, port = listening.client(), free_port()
    work = await client.offer(port=port)
    _, user = await asyncio.get_running_loop().create_connection(Recorder, "127.0.0.1", port)
    source = user.transport.get_extra_info("sockname")
    start = await work.next(StartWorkConn)
    assert start == StartWorkConn("my_app", "127.0.0.1", "127.0.0.1", source[1], port)
    user.transport.write(b"ping")
    await listening.until(lambda: work.rest() == b"ping")
    work.end.transport.write(b"pong")
    work.end.transport.close()
    await user.until(event="end")
    assert user.received == b"pong"
    client.hang_up()
    await listening.until(lambda: not listening.server.facts())
    with pytest.raises(ConnectionRefusedError):
        await asyncio.get_running_loop().create_connection(Recorder, "127.0.0.1", port)


async def test_a_port_that_something_else_listens_on_is_unavailable(listening: World) -> None:
    client = listening.client()
    await client.login()
    with closing(socket.create_server(("127.0.0.1", free_port()))) as taken:
        assert (await client.claim(port=taken.getsockname()[1])).error == "port unavailable"
