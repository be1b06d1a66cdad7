"""Replicas find each other by their list, and let in nobody else."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from harp.errors import TunnelAway
from harp.net import certificates
from harp.net.member_tls import ALPN, member_tls, shown
from harp.net.tls_selfcheck import load_pair
from harp.wire.frp_login import LINK_BYTE
from harp.wire.member import Greeting, LinkStream
from tests.cluster.replicas import PATIENCE, Cable, Place, ReplicaWorld, introduce, member_certificates
from tests.cluster.world import MemberWorld, far_end, through
from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder
from tests.fakes.waiting import settled, until
from tests.tunnel.server.world import as_text, beside

pytestmark = pytest.mark.hasty

Begin = Callable[..., Awaitable[ReplicaWorld]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return member_certificates(tmp_path_factory.mktemp("frp"))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of another CA."""
    return member_certificates(tmp_path_factory.mktemp("frp"))


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs(processors=[as_text]) as events:
        yield events


@pytest.fixture
async def begin(clock: Clock, directory: Path) -> AsyncIterator[Begin]:
    """Begins replicas, of which none knows another one."""
    replicas: list[ReplicaWorld] = []

    async def start(name: str, files: Path = directory, **more: object) -> ReplicaWorld:
        replica = ReplicaWorld(name, clock, files, **more)  # type: ignore[arg-type]
        await replica.server.start()
        replicas.append(replica)
        return replica

    yield start
    for replica in replicas:
        await replica.close()


@pytest.fixture
async def a(begin: Begin) -> ReplicaWorld:
    return await begin("a")


@pytest.fixture
async def b(begin: Begin) -> ReplicaWorld:
    return await begin("b")


async def event(logged: list[EventDict], name: str) -> EventDict:
    """The first of these events, once there is one."""
    await until(lambda: name in [one["event"] for one in logged])
    return next(one for one in logged if one["event"] == name)


# Links


async def test_three_replicas_that_list_each_other_are_linked_each_with_each(
    a: ReplicaWorld, b: ReplicaWorld, begin: Begin
) -> None:
    c = await begin("c")
    introduce(c, b, a)
    for one, names in ((a, "bc"), (b, "ac"), (c, "ab")):
        await one.linked(*names)
    assert [link.boot for link in c.members.links.values()] == ["boot of a", "boot of b"] or len(c.members.links) == 2


async def test_the_one_whose_name_comes_first_dials(a: ReplicaWorld, b: ReplicaWorld) -> None:
    b.learn("a", a.place)
    await settled()
    assert b.members.links == {}
    a.learn("b", b.place)
    await a.linked("b")


@pytest.mark.parametrize("host", ["harp-2..example", ".svc.cluster.local"])
async def test_a_replica_whose_address_was_none_is_linked_once_it_has_one(
    a: ReplicaWorld, b: ReplicaWorld, logged: list[EventDict], host: str
) -> None:
    b.learn("a", a.place)
    a.learn("b", Place(b.place.boot, host, b.place.port))
    assert "is no address" in (await event(logged, "member not linked yet"))["reason"]
    a.learn("b", b.place)
    await a.linked("b")


@pytest.mark.parametrize("strict", [True, False])
async def test_bytes_pass_a_link_whatever_tls_tunnel_clients_use(
    a: ReplicaWorld, begin: Begin, directory: Path, strict: bool
) -> None:
    b = await begin("b", tls=certificates.server_context(directory) if strict else None)
    introduce(a, b)
    work = await a.client().offer()
    near = await through(await b.offered(23001))
    far = await far_end(work)
    far.transport.write(bytes(3 << 20))
    await near.until(size=3 << 20)
    near.transport.write(b"a request")
    await work.end.until(size=len(work.end.received) + 9)
    near.transport.close()
    await far.until(event="lost")


async def test_a_link_that_breaks_is_made_again(a: ReplicaWorld, b: ReplicaWorld) -> None:
    introduce(a, b)
    await a.linked("b")
    before = a.members.links["b"]
    before.abort("a test")
    await until(lambda: a.members.links.get("b") not in (None, before))
    await a.linked("b")
    await b.linked("a")


async def test_a_replica_that_starts_again_is_linked_by_its_new_process(
    a: ReplicaWorld, b: ReplicaWorld, begin: Begin
) -> None:
    """Although nobody has noticed the end of the old one: its machine is cut off."""
    introduce(a, b)
    await a.linked("b")
    again = await begin("b", boot="second boot of b")
    introduce(a, again)
    await again.linked("a")
    await until(lambda: a.members.links["b"].boot == "second boot of b")
    assert a.members.talking == {"b"}


async def test_the_same_when_it_is_the_one_that_dials(a: ReplicaWorld, b: ReplicaWorld, begin: Begin) -> None:
    introduce(a, b)
    await b.linked("a")
    again = await begin("a", boot="second boot of a")
    introduce(again, b)
    await again.linked("b")
    await until(lambda: b.members.links["a"].boot == "second boot of a")


async def test_a_process_that_the_list_has_forgotten_does_not_displace_the_one_it_names(
    a: ReplicaWorld, b: ReplicaWorld, begin: Begin, logged: list[EventDict]
) -> None:
    introduce(a, b)
    await b.linked("a")
    zombie = await begin("a", boot="an older boot of a")
    zombie.learn("b", b.place)
    assert "another process called a is linked with b" in (await event(logged, "link refused"))["reason"]
    assert b.members.links["a"].boot == "boot of a"


async def test_strikes_that_one_has_missed_while_the_link_was_broken_are_made_up_for(
    a: ReplicaWorld, b: ReplicaWorld
) -> None:
    introduce(a, b)
    await b.linked("a")
    a.instance.strike("192.0.2.9", "a wrong key")
    await until(lambda: b.instance.bans.latest(1))
    b.learn("a", None)
    a.learn("b", None)
    a.members.links["b"].abort("a test")
    await a.linked()
    await b.linked()
    a.clock.move(5)
    b.instance.strike("192.0.2.9", "a wrong key")
    introduce(a, b)
    await until(lambda: a.instance.bans.latest(1)[0].ages == (5.0, 0.0))
    await settled()
    assert b.instance.bans.latest(1) == a.instance.bans.latest(1)


async def test_who_vanishes_from_the_list_stays_linked_until_the_link_breaks(a: ReplicaWorld, b: ReplicaWorld) -> None:
    introduce(a, b)
    await a.linked("b")
    a.learn("b", None)
    b.learn("a", None)
    await settled()
    assert a.members.talking == {"b"}
    a.members.links["b"].abort("a test")
    await a.linked()
    await settled()
    assert a.members.links == {}


async def test_an_entry_that_is_no_place_is_reported(a: ReplicaWorld, logged: list[EventDict]) -> None:
    a.learn("b", Place("boot of b", "a" * 64 + ".example", 1))
    await event(logged, "member not linked yet")
    await until(lambda: "b" in a.linker.problems)
    a.learn("b", None)
    await until(lambda: a.linker.problems == {})


async def test_nobody_listens_where_the_list_says(a: ReplicaWorld, b: ReplicaWorld, logged: list[EventDict]) -> None:
    a.learn("b", Place("boot of b", "127.0.0.1", 1))
    assert (await event(logged, "member not linked"))["reason"] == "Connection refused"
    assert a.linker.problems == {"b": "Connection refused"}
    introduce(a, b)
    await a.linked("b")
    await until(lambda: a.linker.problems == {})


# Who is not let in


async def dial(replica: ReplicaWorld, files: Path, stem: str, authority: bytes = b"") -> tuple[ssl.SSLObject, Recorder]:
    """Dial a replica with a certificate, as a link begins. What the other side shows is believed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    load_pair(context, files, stem)
    loop = asyncio.get_running_loop()
    bare, _ = await loop.create_connection(asyncio.Protocol, replica.place.host, replica.place.port)
    replica.clock.transports.append(bare)
    bare.write(LINK_BYTE + (authority or member_tls(files).authority))
    end = Recorder()
    transport = await loop.start_tls(bare, end, context)
    assert transport is not None
    end.connection_made(transport)
    return transport.get_extra_info("ssl_object"), end


@pytest.mark.parametrize("stem", ["client", "server"])
async def test_no_other_certificate_of_our_ca_is_let_in(
    a: ReplicaWorld, directory: Path, logged: list[EventDict], stem: str
) -> None:
    _, end = await dial(a, directory, stem)
    await end.until(event="lost")
    refused = await event(logged, "link refused")
    text = "not a replica's" if stem == "client" else "its certificate is not good"  # OpenSSL knows those of servers
    assert text in refused["reason"] or "unsuitable certificate purpose" in refused["reason"]
    assert a.members.links == {}


@pytest.mark.parametrize("stem", ["client", "server"])
async def test_no_other_certificate_of_our_ca_is_taken_for_a_replica(
    a: ReplicaWorld, directory: Path, logged: list[EventDict], stem: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(context, directory, stem)
    loop, heard = asyncio.get_running_loop(), Recorder()

    async def impostor(listener: socket.socket) -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            await loop.sock_recv(sock, 9)
            with suppress(OSError):
                await loop.connect_accepted_socket(lambda: heard, sock, ssl=context)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        serving = beside(impostor(listener))
        a.learn("b", Place("boot of b", *listener.getsockname()))
        assert "certificate" in (await event(logged, "member not linked"))["reason"]
        a.learn("b", None)
        serving.cancel()
    assert heard.received == b""


async def test_of_another_ca_both_fingerprints_are_named(
    a: ReplicaWorld, begin: Begin, directory: Path, elsewhere: Path, logged: list[EventDict]
) -> None:
    b = await begin("b", elsewhere)
    introduce(a, b)
    refused = (await event(logged, "link refused"))["reason"]
    for files in (directory, elsewhere):
        assert shown(member_tls(files).authority) in refused
    assert "another CA" in (await event(logged, "member not linked"))["reason"]
    assert b.members.links == {}


async def test_who_is_not_in_the_list_is_refused_and_both_say_why(
    a: ReplicaWorld, b: ReplicaWorld, logged: list[EventDict]
) -> None:
    a.learn("b", b.place)
    assert (await event(logged, "link refused"))["reason"] == "a is not in the list of b"
    assert (await event(logged, "member not linked"))["reason"] == "a is not in the list of b"
    b.learn("a", a.place)
    await a.linked("b")


@pytest.mark.parametrize(
    ("member", "to", "reason"),
    [("a", "c", "a looks for c, and this is b"), ("b", "b", "another replica is called b as well")],
)
async def test_who_looks_for_somebody_else_or_is_called_like_us_is_refused(
    b: ReplicaWorld, directory: Path, logged: list[EventDict], member: str, to: str, reason: str
) -> None:
    _, end = await dial(b, directory, "member")
    end.transport.write(LinkStream(opener=True).open(Greeting(member, "boot", to)))
    await end.until(event="lost")
    assert reason.encode() in end.received
    assert (await event(logged, "link refused"))["reason"] == reason


@pytest.mark.parametrize("data", [b"\0\0\0\x02{}", b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n"])
async def test_who_says_something_else_is_refused(
    b: ReplicaWorld, directory: Path, logged: list[EventDict], data: bytes
) -> None:
    _, end = await dial(b, directory, "member")
    end.transport.write(data)
    await end.until(event="lost")
    assert "link: " in (await event(logged, "link refused"))["reason"]


@pytest.mark.parametrize("words", [b"", LINK_BYTE, LINK_BYTE + b"12345678", LINK_BYTE + b"12345678\x16\x03\x01"])
async def test_who_falls_silent_is_dropped_after_the_time_of_a_login(b: ReplicaWorld, words: bytes) -> None:
    bare, end = await asyncio.get_running_loop().create_connection(Recorder, b.place.host, b.place.port)
    bare.write(words)
    await until(lambda: b.server.pending == 1)
    await settled()
    b.clock.move(11)
    await end.until(event="lost")
    assert b.server.pending == 0


async def test_a_harp_that_is_no_replica_says_so(a: ReplicaWorld, begin: Begin, logged: list[EventDict]) -> None:
    alone = MemberWorld("b", a.clock)
    await alone.server.start()
    a.learn("b", Place("boot of b", "127.0.0.1", alone.server.bound_ports[0]))
    refused = await event(logged, "tunnel connection refused")
    assert refused["reason"] == "a replica of a cluster dials, and this HaRP is none"
    assert "HP_CLUSTER_URL" in refused["fix"]
    await event(logged, "member not linked")
    await alone.close()


# One that does not answer


async def test_requests_for_a_replica_that_does_not_answer_fail_soon_and_then_it_is_given_up(
    a: ReplicaWorld, b: ReplicaWorld, logged: list[EventDict]
) -> None:
    b.learn("a", a.place)
    await b.client().offer()
    cable = Cable(b)
    async with cable as place:
        a.learn("b", place)
        offer = await a.offered(23001)
        link = a.members.links["b"]
        await until(lambda: None not in (link.mux.round_trip, b.members.links["a"].mux.round_trip))
        watching = beside(a.members.watch())
        cable.hold_up()
        waiting = beside(offer.connect(Recorder))

        async def pass_time_until(condition: Callable[[], object]) -> None:
            while not condition():
                await asyncio.sleep(0.02)
                a.clock.move(0.05)

        await pass_time_until(waiting.done)
        with pytest.raises(TunnelAway, match=f"member b has not answered for {PATIENCE:g} s"):
            await waiting
        with pytest.raises(TunnelAway, match="member b has not answered"):
            await offer.connect(Recorder)
        await pass_time_until(lambda: a.ports.get(23001) is None)
        assert (await event(logged, "member lost"))["reason"] == f"no answer for {2 * PATIENCE:g} s"
        watching.cancel()
        await a.offered(23001)  # over a new link


async def test_clients_wait_until_a_replica_has_met_the_others(begin: Begin) -> None:
    a = await begin("a")
    a.server.accept_links(a.linker)  # as at its start
    login = beside(a.client().offer())
    await until(lambda: a.server.pending == 1)
    await settled()
    assert not login.done()
    a.server.admit_clients()
    await login
