"""Connections to every kind of target."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from harp.errors import TunnelAway, TunnelHeld, Unreachable
from harp.net.dial import Dialer
from harp.net.ports import PortTable, ProtocolFactory
from harp.net.resolve import Resolver
from harp.net.targets import EngineTunnel, ExAppAddress, ExAppTunnel, Inner, Target, Tcp, Unix
from harp.policy.exapp_target import ExAppTargets
from tests.fakes.clock import Clock
from tests.fakes.transport import MemoryTransport


class Greeter(asyncio.Protocol):
    """A service that says its name."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._name)
        transport.close()


class Listener(asyncio.Protocol):
    """Collects what a service says until it has ended."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


class TunnelOffer:
    """A tunnel whose streams are transports in memory."""

    name = "hello"

    async def connect(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        transport, protocol = MemoryTransport(), factory()
        protocol.connection_made(transport)
        return transport, protocol


class EndingOffer:
    """A tunnel that ends before it has opened a stream."""

    name = "hello"

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._ended = asyncio.Event()

    def end(self) -> None:
        self._ended.set()

    async def connect(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        self.asked.set()
        await self._ended.wait()
        raise TunnelAway("it has ended")


@pytest.fixture
def ports() -> PortTable:
    return PortTable()


@pytest.fixture
async def dialer(ports: PortTable) -> AsyncIterator[Dialer]:
    resolver = Resolver(Clock())
    targets = ExAppTargets(local=(range(1024, 65536),))
    yield Dialer(ports, resolver, connect=5, hold=0, targets=targets, is_exapp=lambda name: name == "hello")
    resolver.close()


async def heard_at(dialer: Dialer, target: Target) -> bytes:
    _, listener = await dialer.dial(target, Listener)
    assert isinstance(listener, Listener)
    await listener.ended.wait()
    return listener.heard


@pytest.fixture
async def tcp_port() -> AsyncIterator[int]:
    """Of a service that says "tcp" on 127.0.0.1."""
    server = await asyncio.get_running_loop().create_server(lambda: Greeter(b"tcp"), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def test_a_tcp_target_is_reached_by_address_and_by_name(dialer: Dialer, tcp_port: int) -> None:
    assert await heard_at(dialer, Tcp("127.0.0.1", tcp_port)) == b"tcp"
    assert await heard_at(dialer, Tcp("localhost", tcp_port)) == b"tcp"


async def test_a_tcp_target_that_refuses_is_named_with_its_address(dialer: Dialer, free_port: int) -> None:
    with pytest.raises(Unreachable, match=rf"^localhost:{free_port} \(127\.0\.0\.1\): "):
        await dialer.dial(Tcp("localhost", free_port), Listener)


class Names:
    """Names with scripted addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        self.forgotten: list[str] = []

    async def addresses(self, host: str) -> tuple[str, ...]:
        return self._addresses

    def forget(self, host: str) -> None:
        self.forgotten.append(host)


async def test_an_address_that_refuses_is_passed_over(ports: PortTable, tcp_port: int) -> None:
    names = Names("127.0.0.9", "::1", "127.0.0.1")
    targets = ExAppTargets(local=(range(1024, 65536),))
    dialer = Dialer(ports, names, connect=5, hold=0, targets=targets)
    assert await heard_at(dialer, Tcp("two.example", tcp_port)) == b"tcp"
    assert names.forgotten == []


async def test_a_name_none_of_whose_addresses_answers_is_looked_up_again(ports: PortTable, free_port: int) -> None:
    names = Names("127.0.0.9", "127.0.0.1")
    dialer = Dialer(ports, names, connect=5, hold=0)
    with pytest.raises(Unreachable, match=rf"^two\.example:{free_port} \(127\.0\.0\.9\): Connection refused"):
        await dialer.dial(Tcp("two.example", free_port), Listener)
    assert names.forgotten == ["two.example"]


class FullService:
    """A service that accepts nothing for now: its queue is full, so the system drops the first packets of others."""

    def __init__(self) -> None:
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(0)
        self.port = int(self._listening.getsockname()[1])
        self._waiting = [socket.socket() for _ in range(4)]
        for one in self._waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", self.port))

    def tries(self) -> set[int]:
        """The local ports from which somebody is trying to connect now."""
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ports = {int(local[-4:], 16) for _, local, remote, state, *_ in lines if (remote[-4:], state) == self._sought}
        return ports - {one.getsockname()[1] for one in self._waiting if one.fileno() >= 0}

    @property
    def _sought(self) -> tuple[str, str]:
        return f"{self.port:04X}", "02"  # SYN_SENT

    def serve(self) -> None:
        """Accept everybody from now on."""
        for one in self._waiting:
            one.close()
        self._listening.listen(128)

    def close(self) -> None:
        self.serve()
        self._listening.close()


@pytest.fixture
def full() -> Iterator[FullService]:
    service = FullService()
    yield service
    service.close()


async def test_an_attempt_without_an_answer_is_given_up_for_another_from_another_port(
    ports: PortTable, full: FullService
) -> None:
    dialer = Dialer(ports, Names("127.0.0.1"), connect=60, hold=0, attempt=0.1)
    dialing = asyncio.create_task(dialer.dial(Tcp("127.0.0.1", full.port), Listener))
    tried: set[int] = set()
    async with asyncio.timeout(30):
        while len(tried) < 3:
            tried |= (now := full.tries())
            assert len(now) <= 2  # one more while the one before it ends
            await asyncio.sleep(0.01)
    full.serve()
    async with asyncio.timeout(30):
        transport, _ = await dialing
    transport.close()


async def test_attempts_end_with_the_time_for_the_connection(ports: PortTable, full: FullService) -> None:
    dialer = Dialer(ports, Names("127.0.0.1"), connect=0.3, hold=0, attempt=0.1)
    with pytest.raises(Unreachable, match=r"did not accept a connection within 0\.3 s"):
        await dialer.dial(Tcp("127.0.0.1", full.port), Listener)


async def test_none_of_an_exapp_s_addresses_may_be_one_that_is_refused(ports: PortTable, tcp_port: int) -> None:
    dialer = Dialer(ports, Names("127.0.0.1", "::1"), connect=5, hold=0)
    with pytest.raises(Unreachable, match=r"^two\.example:\d+ \(127\.0\.0\.1\): HP_LOCAL_EXAPPS does not allow"):
        await dialer.dial(ExAppAddress("two.example", tcp_port), Listener)


async def test_a_unix_socket_is_reached(dialer: Dialer, tmp_path: Path) -> None:
    path = str(tmp_path / "exapp.sock")
    server = await asyncio.get_running_loop().create_unix_server(lambda: Greeter(b"unix"), path)
    assert await heard_at(dialer, Unix(path)) == b"unix"
    server.close()
    await server.wait_closed()


async def test_a_missing_unix_socket_is_named(dialer: Dialer, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=rf"^unix socket {tmp_path}/exapp\.sock: No such file or directory"):
        await dialer.dial(Unix(str(tmp_path / "exapp.sock")), Listener)


async def test_a_service_inside_the_process_is_reached_by_its_name(dialer: Dialer) -> None:
    async def prepare() -> ProtocolFactory:
        return lambda: Greeter(b"inner")

    dialer.offer_inner("control", prepare)
    assert await heard_at(dialer, Inner("control")) == b"inner"


async def test_an_inner_service_for_which_there_is_no_descriptor_is_unreachable(dialer: Dialer) -> None:
    async def prepare() -> ProtocolFactory:
        raise OSError(errno.EMFILE, "Too many open files")

    dialer.offer_inner("control", prepare)
    with pytest.raises(Unreachable, match="Too many open files"):
        await dialer.dial(Inner("control"), Listener)


async def test_a_tunnel_answers_for_its_port(dialer: Dialer, ports: PortTable, tcp_port: int) -> None:
    offer = TunnelOffer()
    ports.claim(tcp_port, offer)
    for target in (ExAppTunnel(tcp_port, "hello"), EngineTunnel(tcp_port)):
        transport, _, used = await dialer.reach(target, Listener)
        assert isinstance(transport, MemoryTransport)
        assert used is offer


@pytest.mark.parametrize("comes", ["before the old one has failed", "soon"])
async def test_a_tunnel_that_ends_while_a_stream_is_opened_is_followed_by_the_next_one(
    ports: PortTable, comes: str
) -> None:
    """As when a client moves to another replica: nobody has to be told that."""
    ending, following = EndingOffer(), TunnelOffer()
    dialer = Dialer(ports, Resolver(Clock()), connect=5, hold=5)
    ports.claim(23055, ending)
    reaching = asyncio.create_task(dialer.reach(ExAppTunnel(23055, "hello"), Listener))
    await ending.asked.wait()
    ports.release(23055, ending)
    if comes == "soon":
        ending.end()
        await asyncio.wait((reaching,), timeout=0.01)
    ports.claim(23055, following)
    ending.end()
    assert (await reaching).offer is following


async def test_a_tunnel_that_is_there_and_opens_no_stream_is_not_waited_for(ports: PortTable) -> None:
    dialer = Dialer(ports, Resolver(Clock()), connect=5, hold=30)
    offer = EndingOffer()
    offer.end()
    ports.claim(23055, offer)
    with pytest.raises(TunnelAway, match="it has ended"):
        await dialer.dial(ExAppTunnel(23055, "hello"), Listener)


async def test_loopback_is_not_tried_for_an_exapp_unless_the_admin_allows_it(dialer: Dialer, tcp_port: int) -> None:
    with pytest.raises(TunnelAway, match=f"no tunnel is connected for port {tcp_port}"):
        await dialer.dial(ExAppTunnel(tcp_port, "hello"), Listener)
    assert await heard_at(dialer, ExAppTunnel(tcp_port, "hello", loopback=True)) == b"tcp"


async def test_loopback_is_never_tried_for_an_engine(dialer: Dialer, tcp_port: int) -> None:
    with pytest.raises(TunnelAway, match=f"no tunnel is connected for port {tcp_port}"):
        await dialer.dial(EngineTunnel(tcp_port), Listener)


async def test_loopback_is_not_tried_for_a_port_that_a_tunnel_has_served(
    dialer: Dialer, ports: PortTable, tcp_port: int
) -> None:
    offer = TunnelOffer()
    ports.claim(tcp_port, offer)
    ports.release(tcp_port, offer)
    with pytest.raises(TunnelAway, match=f"no tunnel is connected for port {tcp_port}"):
        await dialer.dial(ExAppTunnel(tcp_port, "hello", loopback=True), Listener)


async def test_a_tunnel_that_nobody_has_seen_is_away(dialer: Dialer, free_port: int) -> None:
    with pytest.raises(TunnelAway, match=f"no tunnel is connected for port {free_port}"):
        await dialer.dial(ExAppTunnel(free_port, "hello", loopback=True), Listener)


async def test_the_tunnel_of_another_exapp_does_not_answer_for_a_port_that_both_records_name(
    dialer: Dialer, ports: PortTable
) -> None:
    ports.claim(23055, TunnelOffer())
    with pytest.raises(TunnelHeld, match="port 23055 is held by the tunnel of hello"):
        await dialer.dial(ExAppTunnel(23055, "portb"), Listener)


async def test_an_exapp_is_reached_at_the_address_of_its_record(dialer: Dialer, tcp_port: int) -> None:
    assert await heard_at(dialer, ExAppAddress("127.0.0.1", tcp_port)) == b"tcp"


async def test_a_name_that_resolves_to_loopback_reaches_no_listener_of_ours(ports: PortTable, tcp_port: int) -> None:
    resolver = Resolver(Clock())
    targets = ExAppTargets(listeners=frozenset({tcp_port}), local=(range(1, 65536),))
    dialer = Dialer(ports, resolver, connect=5, hold=0, targets=targets)
    with pytest.raises(Unreachable, match="one of HaRP's own listeners"):
        await dialer.dial(ExAppAddress("localhost", tcp_port), Listener)
    resolver.close()
