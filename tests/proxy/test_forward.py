"""Forwarding: what an ExApp's answers, delays and deaths become for the client."""

from __future__ import annotations

import asyncio

import pytest

from harp.errors import TunnelAway, TunnelHeld, Unreachable
from harp.net.deadlines import Deadlines
from harp.net.ports import PortTable, ProtocolFactory
from harp.net.targets import ExAppTunnel, Target, Tcp
from harp.net.turns import SHARE
from harp.proxy.forward import QUIET, Forwarding, Hop
from harp.proxy.listening import FIRST_SILENCE, PROBE_LIMIT, SILENCE, STEP
from harp.proxy.upstreams import Upstreams
from harp.settings import load
from harp.wire.ends import How
from harp.wire.http import CHUNKED, NO_BODY, UNTIL_CLOSE, Fields
from harp.wire.requests import RequestReader
from harp.wire.websocket import CLOSE_GOING_AWAY
from tests.fakes.clock import Clock
from tests.fakes.dialer import ScriptedDialer
from tests.fakes.transport import MemoryTransport

TIMEOUTS = load({"HP_SHARED_KEY": "key", "NC_INSTANCE_URL": "http://cloud"}).timeouts
APP = Tcp("hello", 8080)
BEHIND_TUNNEL = ExAppTunnel(23001, "hello")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


class Client:
    """A Downstream that notes what it is told."""

    def __init__(self) -> None:
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

    def resume_body(self) -> None:
        self.flowing = True

    def pause_body(self) -> None:
        self.flowing = False

    def send_interim(self, response: bytes) -> None:
        self.interim.append(response)

    def send_head(self, status: int, start: bytes, length: int, data: bytes, end: bool) -> None:
        self.status, self.start, self.length, self.received, self.ended = status, start, length, data, end

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


class World:
    """A proxy whose ExApp is the test."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(clock=self.clock)
        self.dialer = ScriptedDialer()
        self.ports = PortTable()
        self.upstreams = Upstreams(self.dialer, self.ports, self.deadlines, TIMEOUTS)

    async def send(
        self, lines: bytes = b"GET / HTTP/1.1\r\n", *, target: Target = APP, prefix: bytes = b""
    ) -> tuple[Client, Forwarding]:
        client = Client()
        head = RequestReader(20).read(lines + b"Host: a\r\n\r\n")
        forwarding = Forwarding(self.upstreams, client, head, Hop(target, "ExApp hello", prefix), b"HEAD BYTES")
        forwarding.start()
        await self.settle()
        return client, forwarding

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def answer(self, data: bytes, index: int = -1) -> None:
        self.dialer.made[index][1].data_received(data)

    def wire(self, index: int = -1) -> MemoryTransport:
        return self.dialer.made[index][0]

    def lose(self, index: int = -1) -> None:
        upstream = self.dialer.made[index][1]
        if not upstream.eof_received():
            upstream.connection_lost(None)

    def wait(self, seconds: float) -> None:
        self.clock.move(seconds)
        self.deadlines.tick()


async def test_the_head_goes_out_and_a_whole_answer_comes_back_at_once() -> None:
    world = World()
    client, _ = await world.send()
    assert world.wire().take() == b"HEAD BYTES"
    world.answer(OK)
    assert (client.status, client.length, client.received, client.ended) == (200, 2, b"ok", True)


async def test_an_answer_cut_at_any_byte_is_still_one_answer() -> None:
    for cut in range(1, len(OK)):
        world = World()
        client, _ = await world.send()
        world.answer(OK[:cut])
        world.answer(OK[cut:])
        assert (client.status, client.received, client.ended) == (200, b"ok", True)


async def test_a_connection_is_used_again_while_it_is_fresh() -> None:
    world = World()
    for _ in range(3):
        await world.send()
        world.answer(OK)
    assert len(world.dialer.made) == 1
    world.wait(TIMEOUTS.upstream_idle + 1)
    assert world.wire().aborted
    await world.send()
    assert len(world.dialer.made) == 2


async def test_what_may_not_be_sent_twice_avoids_connections_that_were_idle_for_long() -> None:
    world = World()
    await world.send()
    world.answer(OK)
    world.wait(3)
    await world.send(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n")
    assert len(world.dialer.made) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok-and-more",
    ],
)
async def test_a_connection_that_ends_or_says_too_much_is_not_used_again(answer: bytes) -> None:
    world = World()
    client, _ = await world.send()
    world.answer(answer)
    assert (client.received, client.ended) == (b"ok", True)
    assert world.wire().closed


async def test_an_idle_connection_ends_with_the_tunnel_it_goes_through() -> None:
    world = World()
    first, second = ProbedOffer(), ProbedOffer()
    world.dialer.offer = first
    world.ports.claim(23001, first)
    await world.send(target=BEHIND_TUNNEL)
    world.answer(OK)
    world.ports.release(23001, first)
    assert world.wire(0).aborted
    world.dialer.offer = second
    world.ports.claim(23001, second)
    await world.send(target=BEHIND_TUNNEL)
    assert len(world.dialer.made) == 2


async def test_a_connection_whose_tunnel_goes_during_an_exchange_is_not_kept_after_it() -> None:
    world = World()
    first, second = ProbedOffer(), ProbedOffer()
    world.dialer.offer = first
    world.ports.claim(23001, first)
    client, _ = await world.send(target=BEHIND_TUNNEL)
    world.ports.release(23001, first)
    world.ports.claim(23001, second)
    world.answer(OK)
    assert client.received == b"ok"
    assert world.wire(0).aborted
    world.dialer.offer = second
    await world.send(target=BEHIND_TUNNEL)
    assert len(world.dialer.made) == 2


async def test_an_idle_connection_is_not_used_for_an_exapp_whose_port_is_another_exapps() -> None:
    world = World()
    offer = world.dialer.offer = ProbedOffer()
    world.ports.claim(23001, offer)
    await world.send(target=BEHIND_TUNNEL)
    world.answer(OK)
    world.dialer.strangers.add(offer)  # its name has become known as another ExApp's
    world.dialer.errors.append(TunnelHeld("port 23001 is held by the tunnel of porta"))
    client, _ = await world.send(target=BEHIND_TUNNEL)
    assert (client.status, client.refused) == (
        503,
        "ExApp hello cannot be reached: port 23001 is held by the tunnel of porta",
    )


async def test_a_long_body_is_passed_on_as_it_comes() -> None:
    world = World()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
    assert (client.length, client.received, client.ended) == (6, b"ab", False)
    world.answer(b"cd")
    world.answer(b"ef")
    assert (client.received, client.ended) == (b"abcdef", True)


async def test_a_chunked_body_is_decoded_with_its_trailers() -> None:
    world = World()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert (client.length, client.received, client.ended) == (CHUNKED, b"abc", False)
    world.answer(b"2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert (client.received, client.ended, client.trailers) == (b"abcde", True, [(b"x-sum", b"1")])
    await world.send()
    assert len(world.dialer.made) == 1


async def test_a_whole_chunked_body_is_one_piece() -> None:
    world = World()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
    assert (client.received, client.ended) == (b"ab", True)


async def test_a_body_without_length_ends_with_its_connection() -> None:
    world = World()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\n\r\nab")
    assert (client.length, client.ended) == (UNTIL_CLOSE, False)
    world.lose()
    assert (client.received, client.ended) == (b"ab", True)


@pytest.mark.parametrize("head", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"])
async def test_an_answer_that_has_no_body_ends_with_its_head(head: bytes) -> None:
    world = World()
    client, _ = await world.send()
    world.answer(head)
    assert (client.length, client.ended) == (NO_BODY, True)


async def test_the_answer_to_head_keeps_its_length() -> None:
    world = World()
    client, _ = await world.send(b"HEAD / HTTP/1.1\r\n")
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
    assert (client.length, client.start, client.ended) == (
        NO_BODY,
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n",
        True,
    )


async def test_interim_answers_are_relayed_before_the_real_one() -> None:
    world = World()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK)
    assert client.interim == [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"]
    assert client.status == 200


async def test_a_request_body_flows_when_the_connection_is_there() -> None:
    world = World()
    client, forwarding = await world.send(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n")
    assert client.flowing
    forwarding.body(b"ab")
    forwarding.body(b"cd")
    forwarding.body_end([])
    assert world.wire().take() == b"HEAD BYTESabcd"
    world.answer(OK)
    assert client.ended
    assert not world.wire().closed


async def test_a_chunked_request_body_is_coded_again() -> None:
    world = World()
    _, forwarding = await world.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n")
    forwarding.body(b"abc")
    forwarding.body_end([(b"x-sum", b"1"), (b"host", b"evil")])
    assert world.wire().take() == b"HEAD BYTES3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"


async def test_back_pressure_goes_both_ways() -> None:
    world = World()
    client, forwarding = await world.send(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n")
    upstream = world.dialer.made[0][1]
    upstream.pause_writing()
    assert not client.flowing
    upstream.resume_writing()
    assert client.flowing
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
    client.blocked = True
    forwarding.blocked()
    assert not world.wire().reading
    world.wait(TIMEOUTS.server + 1)  # the ExApp is not to blame
    assert client.cut_for == ""
    client.blocked = False
    forwarding.drained()
    assert world.wire().reading


async def test_an_answer_before_the_end_of_the_request_ends_the_connection() -> None:
    world = World()
    client, forwarding = await world.send(b"POST / HTTP/1.1\r\nContent-Length: 9999\r\n")
    forwarding.body(b"ab")
    world.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert (client.status, client.ended) == (413, True)
    assert world.wire().closed
    forwarding.body(b"cd")
    assert world.wire().take() == b"HEAD BYTESab"


async def test_a_client_that_leaves_takes_the_connection_with_it() -> None:
    world = World()
    _, forwarding = await world.send()
    forwarding.gone("the client went away")
    assert world.wire().aborted


async def test_a_client_that_leaves_while_connecting_leaves_nothing_behind() -> None:
    world = World()
    client = Client()
    head = RequestReader(20).read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    forwarding = Forwarding(world.upstreams, client, head, Hop(APP, "ExApp hello"), b"HEAD")
    forwarding.start()
    forwarding.gone("the client went away")
    await world.settle()
    assert all(wire.closed for wire, _ in world.dialer.made)
    assert client.status == 0


async def test_an_exapp_that_cannot_be_reached_is_503_with_its_name_and_the_reason() -> None:
    world = World()
    world.dialer.errors = [Unreachable("hello:8080: No route to host")]
    client, _ = await world.send()
    assert (client.status, client.retry_after) == (503, 2)
    assert client.refused == "ExApp hello cannot be reached: hello:8080: No route to host"


async def test_a_tunnel_that_stays_away_is_503_naming_the_app() -> None:
    world = World()
    world.dialer.errors = [TunnelAway("no tunnel is connected for port 23001")]
    client, _ = await world.send(target=BEHIND_TUNNEL)
    assert client.status == 503
    assert client.refused == "ExApp hello cannot be reached: no tunnel is connected for port 23001"


async def test_an_exapp_that_is_silent_for_too_long_is_504() -> None:
    world = World()
    client, _ = await world.send()
    world.wait(TIMEOUTS.response - 1)
    assert client.status == 0
    world.wait(2)
    assert (client.status, client.refused) == (504, "ExApp hello gave no answer within the time limit")
    assert world.wire().aborted


async def test_the_limit_for_an_answer_is_longer_than_half_an_hour() -> None:
    assert TIMEOUTS.response > 1800


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 099 Odd\r\n\r\n", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\nbare: lf\n\r\n\r\n"]
)
async def test_an_answer_that_is_not_http_is_502(garbage: bytes) -> None:
    world = World()
    client, _ = await world.send()
    world.answer(garbage)
    assert client.status == 502
    assert "is not HTTP" in client.refused


async def test_a_head_without_end_is_502() -> None:
    world = World()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000)
    assert client.status == 502


async def test_a_connection_that_closes_before_an_answer_is_502() -> None:
    world = World()
    client, _ = await world.send()
    world.lose()
    assert (client.status, client.refused) == (502, "ExApp hello closed the connection before its answer was complete")


async def test_a_body_that_breaks_off_is_cut_for_the_client_too() -> None:
    for head in (b"Content-Length: 10", b"Transfer-Encoding: chunked"):
        world = World()
        client, _ = await world.send()
        world.answer(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n2\r\nab")
        world.lose()
        assert client.cut_for
        assert not client.ended


async def test_a_kept_connection_that_had_closed_costs_no_request() -> None:
    world = World()
    await world.send()
    world.answer(OK)
    client, _ = await world.send()
    world.lose()
    await world.settle()
    assert len(world.dialer.made) == 2
    world.answer(OK)
    assert client.received == b"ok"


async def test_a_request_that_is_not_idempotent_is_not_sent_twice() -> None:
    world = World()
    await world.send()
    world.answer(OK)
    client, _ = await world.send(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n")
    world.lose()
    await world.settle()
    assert client.status == 502
    assert len(world.dialer.made) == 1


async def test_an_answer_has_begun_so_nothing_is_sent_twice() -> None:
    world = World()
    await world.send()
    world.answer(OK)
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 2")
    world.lose()
    assert client.status == 502


@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", OK[:17] + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"])
async def test_an_answer_that_is_not_http_is_an_answer_so_nothing_is_sent_twice(garbage: bytes) -> None:
    world = World()
    await world.send()
    world.answer(OK)
    client, _ = await world.send()
    world.answer(garbage)
    await world.settle()
    assert client.status == 502
    assert len(world.dialer.made) == 1


async def test_a_tunnel_stream_that_ends_at_once_is_tried_again_once() -> None:
    world = World()
    client, _ = await world.send(target=BEHIND_TUNNEL)
    world.lose()
    await world.settle()
    assert len(world.dialer.made) == 2
    world.lose()
    await world.settle()
    assert client.status == 502
    assert len(world.dialer.made) == 2


GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n"


async def through_a_tunnel(lines: bytes, *, listens: bool) -> tuple[World, ProbedOffer, Client]:
    """A request that has just gone out through a tunnel of which nothing is known."""
    world = World()
    offer = world.dialer.offer = ProbedOffer(listens=listens)
    world.ports.claim(23001, offer)
    client, _ = await world.send(lines, target=BEHIND_TUNNEL)
    return world, offer, client


async def silence(world: World, seconds: float) -> None:
    """Pass the time, tick by tick."""
    for _ in range(round(seconds / 0.25)):
        world.wait(0.25)
        await world.settle()


async def test_silence_of_a_tunnel_behind_which_nothing_listens_is_502_within_seconds() -> None:
    """frpc up to 0.67 keeps silent when the ExApp's socket is missing (F 5.6)."""
    for lines in (GET, POST):
        world, offer, client = await through_a_tunnel(lines, listens=False)
        await silence(world, FIRST_SILENCE)
        assert len(offer.probes) == 1
        await silence(world, PROBE_LIMIT + 4 * STEP)
        assert client.status == 502
        assert client.refused == (
            "the tunnel of ExApp hello is up, but nothing listens behind it (frpc's log says why)"
        )
        await silence(world, PROBE_LIMIT)
        assert world.wire().aborted
        assert all(probe.aborted for probe in offer.probes)


async def test_a_request_that_came_before_its_exapp_listened_is_sent_again_as_soon_as_it_does() -> None:
    world, offer, client = await through_a_tunnel(GET, listens=False)
    await silence(world, 1.0)
    offer.listens = True
    await silence(world, 2 * STEP)
    assert world.wire(0).aborted
    world.answer(OK, index=1)
    assert client.received == b"ok"


async def test_what_may_not_be_sent_twice_is_502_when_it_came_before_its_exapp_listened() -> None:
    world, offer, client = await through_a_tunnel(POST, listens=False)
    await silence(world, 1.0)
    offer.listens = True
    await silence(world, 2 * STEP)
    assert client.status == 502
    assert "nothing was listening behind it when this request was sent" in client.refused
    assert len(world.dialer.made) == 1


async def test_a_long_request_through_a_fresh_tunnel_is_waited_for_when_the_app_listens() -> None:
    world, _, client = await through_a_tunnel(POST, listens=True)
    await silence(world, 2.0)
    world.wait(TIMEOUTS.response - 5)
    assert (client.status, len(world.dialer.made)) == (0, 1)
    world.answer(OK, index=0)
    assert client.status == 200


async def test_a_long_request_is_sent_once_through_a_tunnel_that_has_answered_before() -> None:
    world, offer, client = await through_a_tunnel(GET, listens=True)
    world.answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    client, _ = await world.send(GET, target=BEHIND_TUNNEL)
    await silence(world, SILENCE + 2 * STEP)
    assert len(offer.probes) == 1
    world.wait(TIMEOUTS.response - 5)
    assert client.status == 0
    world.wait(10)
    assert (client.status, len(world.dialer.made)) == (504, 2)


async def test_an_exapp_that_has_died_behind_its_tunnel_is_noticed_although_it_has_answered_before() -> None:
    world, offer, _ = await through_a_tunnel(POST, listens=True)
    world.answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    offer.listens = False
    client, _ = await world.send(POST, target=BEHIND_TUNNEL)
    await silence(world, SILENCE + PROBE_LIMIT + 4 * STEP)
    assert client.status == 502


async def test_who_has_sent_an_interim_answer_through_a_fresh_tunnel_has_all_the_time_for_the_real_one() -> None:
    world, _, client = await through_a_tunnel(GET, listens=True)
    world.answer(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    await silence(world, 60.0)
    world.answer(OK)
    assert (client.status, client.received) == (200, b"ok")


async def test_an_interim_answer_through_a_fresh_tunnel_does_not_lift_the_limit() -> None:
    world, _, client = await through_a_tunnel(GET, listens=True)
    world.answer(b"HTTP/1.1 102 Processing\r\n\r\n")
    world.wait(TIMEOUTS.response + 1)
    assert client.status == 504


async def test_a_kept_stream_is_not_probed_because_it_has_carried_an_answer() -> None:
    world, offer, _ = await through_a_tunnel(GET, listens=True)
    world.answer(OK)
    client, _ = await world.send(GET, target=BEHIND_TUNNEL)
    await silence(world, 20)
    assert (offer.probes, client.status, len(world.dialer.made)) == ([], 0, 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_a_connection_whose_answer_to_head_announces_a_body_is_not_used_again(answer: bytes) -> None:
    world = World()
    client, _ = await world.send(b"HEAD / HTTP/1.1\r\n")
    world.answer(answer)
    assert client.ended
    assert world.wire().closed


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_what_follows_an_answer_without_a_body_never_answers_the_next_request(status: bytes) -> None:
    world = World()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 %b\r\n\r\n" % status)
    assert client.ended
    victim, _ = await world.send()
    assert len(world.dialer.made) == 2
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", index=0)
    assert world.wire(0).aborted
    world.answer(OK, index=1)
    assert victim.received == b"ok"


async def test_a_connection_rests_after_an_answer_without_a_body_and_is_used_again() -> None:
    world = World()
    await world.send()
    world.answer(b"HTTP/1.1 304 Not Modified\r\n\r\n")
    world.wait(0.5)
    await world.send()
    assert len(world.dialer.made) == 1


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"HTTP/1.1 200 OK\r\nX: 1\n", b"ok\r\n"])
async def test_a_head_that_cannot_become_one_is_502_at_once(head: bytes) -> None:
    world = World()
    client, _ = await world.send()
    world.answer(head)
    assert client.status == 502
    assert "is not HTTP" in client.refused


async def test_a_large_read_pauses_its_connection_until_others_have_been_served() -> None:
    world = World()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    world.answer(bytes(SHARE))
    assert not world.wire().reading
    await world.settle()
    assert world.wire().reading
    assert len(client.received) == SHARE


async def test_a_connection_that_waits_for_its_turn_stays_paused_when_its_client_is_slow() -> None:
    world = World()
    client, forwarding = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    world.answer(bytes(SHARE))
    client.blocked = True
    forwarding.blocked()
    await world.settle()
    assert not world.wire().reading


async def test_a_client_that_reads_on_does_not_let_its_connection_jump_the_line() -> None:
    world = World()
    client, forwarding = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    world.answer(bytes(SHARE))
    client.blocked = True
    forwarding.blocked()
    client.blocked = False
    forwarding.drained()
    assert not world.wire().reading
    await world.settle()
    assert world.wire().reading


async def test_an_answer_in_tiny_chunks_is_decoded_in_many_turns_and_whole() -> None:
    world = World()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    world.answer(b"1\r\na\r\n" * 10000 + b"0\r\n\r\n")
    assert len(client.received) < 2000
    assert not world.wire().reading
    turns = 0
    while not client.ended:
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 10
    assert client.received == b"a" * 10000
    assert world.wire().reading


async def test_nothing_of_an_answer_in_tiny_chunks_is_lost_when_its_connection_ends_or_its_client_is_slow() -> None:
    world = World()
    client, forwarding = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.blocked = True
    forwarding.blocked()
    world.answer(b"1\r\na\r\n" * 2000 + b"0\r\n\r\n")
    await world.settle()
    held = len(client.received)
    assert held < 2000
    await world.settle()
    assert len(client.received) == held
    world.dialer.made[0][1].eof_received()
    assert client.ended
    assert client.received == b"a" * 2000


async def test_a_tunnels_streams_are_not_paused_because_the_tunnel_takes_turns_itself() -> None:
    world = World()
    offer = world.dialer.offer = ProbedOffer()
    world.ports.claim(23001, offer)
    await world.send(target=BEHIND_TUNNEL)
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    world.answer(bytes(SHARE))
    assert world.wire().reading


async def test_idle_connections_are_as_many_as_were_in_use_at_once() -> None:
    world = World()
    for _ in range(300):
        await world.send()
    for index in range(300):
        world.answer(OK, index)
    for _ in range(300):
        await world.send()
    assert len(world.dialer.made) == 300


async def test_a_websocket_is_relayed_both_ways_and_lives_as_long_as_it_moves() -> None:
    world = World()
    client, forwarding = await world.send(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    world.answer(SWITCH + b"\x81\x02hi")
    assert (client.status, client.received) == (101, b"\x81\x02hi")
    assert client.start == SWITCH.lower().replace(
        b"http/1.1 101 switching protocols", b"HTTP/1.1 101 Switching Protocols"
    )
    forwarding.body(b"\x81\x80mask")
    assert world.wire().take() == b"HEAD BYTES\x81\x80mask"
    for _ in range(3):
        world.wait(TIMEOUTS.tunnel - 1)
        world.answer(b"\x89\x00")
    assert not client.closed
    world.wait(TIMEOUTS.tunnel + 1)
    assert client.closed


async def test_an_upgraded_stream_ends_when_both_sides_have_finished() -> None:
    world = World()
    client, forwarding = await world.send(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    world.answer(SWITCH)
    forwarding.body_end([])
    assert world.wire().eof_sent
    assert not client.closed
    assert world.dialer.made[0][1].eof_received() is True
    assert client.closed


async def test_behind_a_tunnel_the_clients_end_is_not_passed_on() -> None:
    """frpc closes both directions at the first end (F 5.6): what the ExApp still sends would be lost."""
    world = World()
    client, forwarding = await world.send(
        b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", target=BEHIND_TUNNEL
    )
    world.answer(SWITCH)
    forwarding.body_end([])
    assert not world.wire().eof_sent
    world.answer(b"last words")
    assert client.received == b"last words"
    world.wait(TIMEOUTS.half_closed + 1)
    assert client.closed


async def test_an_upgrade_that_nobody_asked_for_is_502() -> None:
    world = World()
    client, _ = await world.send()
    world.answer(SWITCH)
    assert client.status == 502


async def test_an_exapp_may_decline_an_upgrade() -> None:
    world = World()
    client, _ = await world.send(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    world.answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    assert (client.status, client.ended) == (403, True)


async def websocket(world: World) -> tuple[Client, Forwarding]:
    client, forwarding = await world.send(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    world.answer(SWITCH)
    return client, forwarding


async def test_draining_closes_a_quiet_websocket_with_1001() -> None:
    world = World()
    client, forwarding = await websocket(world)
    world.answer(b"\x81\x05hello")
    assert forwarding.drain() is False
    world.wait(QUIET)
    assert forwarding.drain() is True
    assert client.received == b"\x81\x05hello" + CLOSE_GOING_AWAY
    assert client.closed
    assert world.wire().aborted


async def test_draining_closes_a_busy_websocket_between_two_frames_only() -> None:
    world = World()
    client, forwarding = await websocket(world)
    world.answer(b"\x81\x05he")
    assert forwarding.drain() is False
    for piece in (b"llo", b"\x81\x02hi\x81", b"\x02ho", b"\x81\x02yo"):
        world.answer(piece)
        if piece != b"\x81\x02yo":
            assert forwarding.drain() is False
    assert forwarding.drain() is True
    assert client.received == b"\x81\x05hello\x81\x02hi\x81\x02ho\x81\x02yo" + CLOSE_GOING_AWAY


async def test_draining_adds_nothing_to_a_websocket_that_its_exapp_has_finished() -> None:
    world = World()
    client, forwarding = await world.send(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    world.answer(SWITCH)
    world.dialer.made[-1][1].eof_received()
    assert client.finished
    assert forwarding.drain() is False
    assert client.received == b""


async def test_redirects_get_their_prefix_back_when_asked_for() -> None:
    world = World()
    client, _ = await world.send(prefix=b"/exapps/hello")
    world.answer(
        b"HTTP/1.1 307 T\r\nLocation: /mcp/\r\nContent-Location: /exapps/hello/x\r\nX: /y\r\nContent-Length: 0\r\n\r\n"
    )
    lines = b"Location: /exapps/hello/mcp/\r\nContent-Location: /exapps/hello/x\r\nX: /y\r\nContent-Length: 0\r\n"
    assert client.start == b"HTTP/1.1 307 T\r\n" + lines


@pytest.mark.parametrize("location", [b"https://elsewhere/x", b"//elsewhere/x", b"relative", b"/exapps/hello?x"])
async def test_other_locations_are_left_alone(location: bytes) -> None:
    world = World()
    client, _ = await world.send(prefix=b"/exapps/hello")
    world.answer(b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")
    assert b"\r\nLocation: " + location + b"\r\n" in client.start


async def test_addresses_that_do_not_connect_leave_nothing_in_the_count() -> None:
    world = World()
    world.dialer.failed_tries = 1  # uvloop makes the protocol before it knows whether there will be a connection
    client, _ = await world.send()
    world.answer(OK)
    assert (client.status, repr(world.upstreams)) == (200, "<Upstreams 1 open, 1 idle, 1 targets>")


async def test_the_connection_is_the_one_that_was_made_although_another_was_tried_beside_it() -> None:
    world = World()
    world.dialer.late_tries = 1
    client, _ = await world.send()
    world.answer(OK)
    assert (client.status, client.received) == (200, b"ok")


async def test_closing_the_proxy_drops_idle_connections() -> None:
    world = World()
    await world.send()
    world.answer(OK)
    await world.upstreams.close()
    assert world.wire().aborted


async def test_a_body_waits_while_its_request_is_sent_again() -> None:
    world = World()
    await world.send()
    world.answer(OK)
    client, forwarding = await world.send(b"PUT / HTTP/1.1\r\nContent-Length: 4\r\n")
    assert client.flowing
    world.lose()
    assert not client.flowing
    await world.settle()
    assert client.flowing
    forwarding.body(b"abcd")
    assert world.wire().take() == b"HEAD BYTESabcd"


async def test_an_idle_connection_is_dropped_in_time_also_after_a_body_in_pieces() -> None:
    world = World()
    await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
    world.answer(b"k")
    world.wait(TIMEOUTS.upstream_idle + 1)
    assert world.wire().aborted


async def test_an_exapp_that_answers_without_reading_the_request_is_not_waited_for() -> None:
    world = World()
    _, forwarding = await world.send(b"POST / HTTP/1.1\r\nContent-Length: 9999\r\n")
    forwarding.body(b"ab")
    world.wire().unsent = 2
    world.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert world.wire().aborted


async def test_interim_answers_wait_for_a_client_that_does_not_read() -> None:
    world = World()
    client, forwarding = await world.send()
    world.answer(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    client.blocked = True
    forwarding.blocked()
    assert not world.wire().reading
    client.blocked = False
    forwarding.drained()
    assert world.wire().reading
    world.wait(TIMEOUTS.response + 1)
    assert client.status == 504


async def test_a_connection_that_waits_for_a_slow_client_is_not_used_for_others() -> None:
    world = World()
    client, forwarding = await world.send()
    world.answer(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    client.blocked = True
    forwarding.blocked()
    world.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert client.ended
    await world.send()
    assert len(world.dialer.made) == 2
    assert world.wire().reading


async def test_a_bug_while_connecting_is_500_and_not_a_client_that_waits_for_ever() -> None:
    world = World()
    world.dialer.errors = [RuntimeError("a bug")]
    client, _ = await world.send()
    assert client.status == 500
    assert "a bug" not in client.refused


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"304 Not Modified"])
async def test_bytes_behind_an_answer_without_body_never_reach_the_client(status: bytes) -> None:
    world = World()
    method = b"HEAD" if status == b"200 OK" else b"GET"
    client, _ = await world.send(method + b" / HTTP/1.1\r\n")
    world.answer(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
    assert (client.received, client.ended) == (b"", True)
    assert world.wire().closed
