"""Requests to several replicas of one ExApp: who gets which, and what becomes of them when a replica goes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from harp.errors import Unreachable
from harp.net.targets import ExAppAddress, Target, Tcp
from harp.policy.kubernetes_endpoints import Endpoint
from harp.proxy.forward import Forwarding, Hop
from harp.proxy.replicas import Replicas, Spread
from harp.wire.requester import WAITING
from tests.fakes.waiting import settled
from tests.proxy.forward_world import OK, READER, TIMEOUTS, NotingClient, ProxyWorld

SERVICE = Tcp("10.96.0.5", 23000)
MARKS = {host: f"{number:016x}" for number, host in enumerate(("10.1.0.1", "10.1.0.2", "10.1.0.3"))}


def endpoints(*hosts: str) -> list[Endpoint]:
    return [Endpoint(host, 23000, MARKS[host]) for host in hosts]


class ReplicatedProxy(ProxyWorld):
    """A proxy in front of three replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.replicas = Replicas("nc-app-x")
        self.replicas.update(endpoints(*MARKS), sticky=False)
        self.requests: list[Spread] = []

    async def ask(self, lines: bytes = b"GET / HTTP/1.1\r\n") -> NotingClient:
        client = NotingClient()
        head = READER.read(lines + b"Host: a\r\n\r\n")
        hop = Hop(SERVICE, "ExApp x")
        forwarding = Forwarding(self.upstreams, client, head, hop, b"HEAD BYTES", TIMEOUTS.server)
        spread = self.replicas.spread(forwarding, b"/exapps/x")
        self.requests.append(spread)
        spread.start()
        await settled()
        return client

    def done(self, index: int = -1, answer: bytes = OK) -> None:
        """Have a request answered, on the connection of the same number."""
        self.answer(answer, index)
        self.requests[index].leave()

    @property
    def waiting(self) -> list[int]:
        """The connections on which an answer is waited for."""
        return [number for number, (_, upstream) in enumerate(self.dialer.made) if upstream.state is WAITING]

    @property
    def hosts(self) -> list[str]:
        """Where connections went."""
        return [host_of(target) for target in self.dialer.targets]


def host_of(target: Target) -> str:
    assert isinstance(target, (ExAppAddress, Tcp))
    return target.host


@pytest.fixture
async def world() -> AsyncIterator[ReplicatedProxy]:
    world = ReplicatedProxy()
    yield world
    await world.upstreams.close()
    world.deadlines.close()


async def test_requests_at_once_are_spread_evenly(world: ReplicatedProxy) -> None:
    for _ in range(6):
        await world.ask()
    assert sorted(world.hosts) == sorted([*MARKS, *MARKS])


async def test_requests_one_after_the_other_take_turns(world: ReplicatedProxy) -> None:
    for _ in range(3):
        await world.ask()
        world.done()
    assert sorted(world.hosts) == sorted(MARKS)


async def test_a_replica_that_is_busy_gets_no_more_until_the_others_are_as_busy(world: ReplicatedProxy) -> None:
    await world.ask()
    slow = world.hosts[0]
    for _ in range(8):
        await world.ask()
        (quick,) = (number for number in world.waiting if number != 0)
        world.answer(OK, quick)
        world.requests[-1].leave()
    assert world.hosts.count(slow) == 1


async def test_a_kept_connection_does_not_keep_a_replica_in_the_lead(world: ReplicatedProxy) -> None:
    for _ in range(3):
        await world.ask()
    for index in range(3):
        world.done(index)
    for _ in range(3):
        await world.ask()
    assert len(world.hosts) == 3  # each of the kept connections was used again
    assert world.waiting == [0, 1, 2]


async def test_a_client_that_leaves_counts_no_longer(world: ReplicatedProxy) -> None:
    for _ in range(3):
        await world.ask()
    world.requests[1].gone("the client went away")
    world.requests[1].leave()
    world.requests[1].leave()  # said twice
    for _ in range(4):
        await world.ask()
    assert world.hosts[3] == world.hosts[1]
    assert sorted(world.hosts[4:]) == sorted(MARKS)


async def test_a_replica_that_is_not_reached_is_passed_over_and_left_alone_for_a_while(world: ReplicatedProxy) -> None:
    world.dialer.errors = [Unreachable("no route to host")]
    client = await world.ask()
    assert (len(world.hosts), client.status) == (2, 0)
    gone = world.hosts[0]
    world.done()
    for _ in range(4):
        await world.ask()
    assert world.hosts.count(gone) == 1
    world.wait(6)
    for _ in range(4):
        await world.ask()
    assert world.hosts.count(gone) > 1


async def test_the_service_is_asked_when_no_replica_is_reached(world: ReplicatedProxy) -> None:
    world.dialer.errors = [Unreachable("no route to host")] * 3
    client = await world.ask()
    assert sorted(world.hosts[:3]) == sorted(MARKS)
    assert world.hosts[3:] == ["10.96.0.5"]
    world.done(-1)
    assert client.status == 200


async def test_a_request_that_a_replica_takes_into_its_grave_goes_to_another(world: ReplicatedProxy) -> None:
    client = await world.ask()
    world.lose()
    await settled()
    assert len(set(world.hosts)) == 2
    world.done(-1)
    assert (client.status, client.received) == (200, b"ok")


async def test_a_request_that_may_not_be_sent_twice_is_not(world: ReplicatedProxy) -> None:
    client = await world.ask(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n")
    world.lose()
    await settled()
    assert (len(world.hosts), client.status) == (1, 502)


async def test_replicas_that_come_and_go_are_followed_and_those_that_stay_keep_their_counts(
    world: ReplicatedProxy,
) -> None:
    for _ in range(3):
        await world.ask()
    world.replicas.update(endpoints("10.1.0.1", "10.1.0.2"), sticky=False)
    for _ in range(2):
        await world.ask()
    assert sorted(world.hosts[3:]) == ["10.1.0.1", "10.1.0.2"]
    world.replicas.update(endpoints("10.1.0.1", "10.1.0.2", "10.1.0.3"), sticky=False)
    for _ in range(2):
        await world.ask()
    assert world.hosts[5:] == ["10.1.0.3", "10.1.0.3"]


async def test_one_replica_alone_is_not_chosen_but_reached_by_its_service(world: ReplicatedProxy) -> None:
    assert world.replicas.several
    world.replicas.update(endpoints("10.1.0.1"), sticky=False)
    assert not world.replicas.several


# --- one client, one replica


async def test_a_sticky_exapp_marks_its_clients_and_they_come_back(world: ReplicatedProxy) -> None:
    world.replicas.update(endpoints(*MARKS), sticky=True)
    client = await world.ask()
    world.done()
    first = world.hosts[0]
    cookie = b"harp-replica=" + MARKS[first].encode()
    assert b"set-cookie: " + cookie + b"; Path=/exapps/x; HttpOnly; SameSite=Lax\r\n" in client.start
    for _ in range(5):
        again = await world.ask(b"GET / HTTP/1.1\r\nCookie: a=b; " + cookie + b"\r\n")
        assert b"set-cookie" not in again.start
    assert set(world.hosts) == {first}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok",  # the rest comes later
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_every_kind_of_answer_can_mark_a_client(world: ReplicatedProxy, answer: bytes) -> None:
    world.replicas.update(endpoints(*MARKS), sticky=True)
    client = await world.ask(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    world.answer(answer)
    assert client.start.count(b"set-cookie: harp-replica=") == 1


@pytest.mark.parametrize("cookie", [b"harp-replica=ffffffffffffffff", b"harp-replica=no", b"xharp-replica=0"])
async def test_a_client_whose_replica_is_gone_gets_another_and_a_new_mark(
    world: ReplicatedProxy, cookie: bytes
) -> None:
    world.replicas.update(endpoints(*MARKS), sticky=True)
    client = await world.ask(b"GET / HTTP/1.1\r\nCookie: " + cookie + b"\r\n")
    world.done()
    assert b"set-cookie: harp-replica=" + MARKS[world.hosts[0]].encode() in client.start


async def test_a_client_stays_when_its_connection_closes_and_leaves_when_its_replica_does(
    world: ReplicatedProxy,
) -> None:
    world.replicas.update(endpoints(*MARKS), sticky=True)
    cookie = b"GET / HTTP/1.1\r\nCookie: harp-replica=" + MARKS["10.1.0.2"].encode() + b"\r\n"
    await world.ask(cookie)
    world.lose()
    await settled()
    assert world.hosts == ["10.1.0.2", "10.1.0.2"]
    world.done()
    world.lose()  # the kept connection
    world.dialer.errors = [Unreachable("no route to host")]
    client = await world.ask(cookie)
    world.done(-1)
    assert b"set-cookie: harp-replica=" in client.start


async def test_no_client_of_another_exapp_is_marked(world: ReplicatedProxy) -> None:
    client = await world.ask()
    world.done()
    assert b"set-cookie" not in client.start
