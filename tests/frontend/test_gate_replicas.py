"""Requests to an ExApp whose replicas are known go to them, and are counted from their beginning to their end."""

from __future__ import annotations

import pytest

from harp.frontend.connection import ClientConnection
from harp.net.targets import ExAppAddress
from harp.policy.kubernetes_endpoints import Endpoint
from harp.proxy.replicas import Replicas
from tests.fakes.transport import MemoryTransport
from tests.fakes.waiting import settled
from tests.frontend.gate_world import OK, GateWorld

HOSTS = ("10.1.0.1", "10.1.0.2")
REQUEST = b"GET /exapps/direct/public HTTP/1.1\r\nHost: cloud.example\r\n\r\n"


class ReplicatedGate(GateWorld):
    """A gate in front of two replicas of the ExApp `direct`."""

    def __init__(self) -> None:
        super().__init__()
        self.replicas = Replicas("nc-app-direct")
        self.know(*HOSTS)
        self.gate.replicas = lambda app_id: self.replicas if app_id == "direct" else None

    def know(self, *hosts: str, sticky: bool = False) -> None:
        self.replicas.update([Endpoint(host, 8080, f"{host:0>16}") for host in hosts], sticky=sticky)

    async def begin(self) -> tuple[MemoryTransport, ClientConnection]:
        """Send a request over a connection of its own."""
        wire, connection = self.connect()
        connection.data_received(REQUEST)
        await settled()
        return wire, connection

    @property
    def hosts(self) -> list[str]:
        """Where connections to the ExApp went."""
        return [target.host for target in self.dialer.targets if isinstance(target, ExAppAddress)]


@pytest.fixture
async def world() -> ReplicatedGate:
    return ReplicatedGate()


async def test_requests_go_to_the_replicas_and_not_to_their_service(world: ReplicatedGate) -> None:
    for _ in range(4):
        await world.begin()
    assert sorted(world.hosts) == sorted(HOSTS * 2)


async def test_a_replica_is_free_again_when_its_answer_is_there_or_its_client_gone(world: ReplicatedGate) -> None:
    await world.begin()
    await world.begin()
    world.dialer.made[0][1].data_received(OK)
    _, connection = await world.begin()  # over the connection that is free
    assert len(world.hosts) == 2
    connection.connection_lost(None)
    await world.begin()
    assert world.hosts[2] == world.hosts[0]


async def test_one_replica_alone_is_reached_by_its_service(world: ReplicatedGate) -> None:
    world.know("10.1.0.1")
    await world.begin()
    assert world.hosts == ["direct-host"]


async def test_other_exapps_go_where_their_records_say(world: ReplicatedGate) -> None:
    await world.ask("/exapps/hello/public")
    assert world.hosts == []
    assert len(world.dialer.targets) == 1


async def test_the_mark_of_a_sticky_exapp_is_for_its_part_of_the_site(world: ReplicatedGate) -> None:
    world.know(*HOSTS, sticky=True)
    wire, _ = await world.begin()
    world.answer()
    assert b"; Path=/exapps/direct; HttpOnly; SameSite=Lax\r\n" in wire.take()
