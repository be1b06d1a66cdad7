"""The port table: who answers for a port, and who waits for it."""

from __future__ import annotations

import asyncio

import pytest

from harp.errors import TunnelAway
from harp.net.ports import PortTable, ProtocolFactory
from tests.fakes.waiting import settled


class NamedOffer:
    """An offer that nobody connects to."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def connect(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        raise NotImplementedError


HELLO, OTHER = NamedOffer("hello"), NamedOffer("other")


def test_a_claimed_port_is_answered_for_until_it_is_released() -> None:
    ports = PortTable()
    ports.claim(23001, HELLO)
    assert ports.get(23001) is HELLO
    ports.release(23001, HELLO)
    assert ports.get(23001) is None


def test_a_predecessor_cannot_release_what_its_successor_holds() -> None:
    ports = PortTable()
    ports.claim(23001, HELLO)
    ports.claim(23001, OTHER)
    ports.release(23001, HELLO)
    assert ports.get(23001) is OTHER


def test_a_port_is_remembered_after_its_tunnel_has_gone() -> None:
    ports = PortTable()
    assert not ports.seen(23001)
    ports.claim(23001, HELLO)
    ports.release(23001, HELLO)
    assert ports.seen(23001)


def test_who_watches_is_told_of_offers_that_are_over_or_doubted() -> None:
    ports, told = PortTable(), list[tuple[int, object]]()
    ports.watch(lambda port, offer: told.append((port, offer)))
    ports.claim(23001, HELLO)
    ports.doubt(23001, OTHER)
    assert told == []
    ports.doubt(23001, HELLO)
    assert ports.get(23001) is HELLO
    ports.release(23001, HELLO)
    assert told == [(23001, HELLO)] * 2


def test_offers_are_listed_by_port() -> None:
    ports = PortTable()
    ports.claim(24001, OTHER)
    ports.claim(23001, HELLO)
    assert ports.items() == [(23001, HELLO), (24001, OTHER)]


async def test_all_who_wait_for_a_port_get_it_when_it_is_claimed() -> None:
    ports = PortTable()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(ports.wait(23001, 5)) for _ in range(3)]
        await settled()
        ports.claim(23001, HELLO)
    assert [task.result() for task in waiting] == [HELLO] * 3


async def test_a_port_that_is_claimed_already_is_not_waited_for() -> None:
    ports = PortTable()
    ports.claim(23001, HELLO)
    assert await ports.wait(23001, 0) is HELLO


async def test_a_tunnel_that_does_not_come_back_in_time_is_away() -> None:
    with pytest.raises(TunnelAway, match="no tunnel is connected for port 23001"):
        await PortTable().wait(23001, 0)


async def test_a_tunnel_that_leaves_before_a_waiter_wakes_is_away() -> None:
    ports = PortTable()
    waiting = asyncio.create_task(ports.wait(23001, 5))
    await settled()
    ports.claim(23001, HELLO)
    ports.release(23001, HELLO)
    with pytest.raises(TunnelAway, match="was lost again"):
        await waiting


async def test_who_gives_up_waiting_does_not_disturb_the_others() -> None:
    ports = PortTable()
    impatient, patient = (asyncio.create_task(ports.wait(23001, 5)) for _ in range(2))
    await settled()
    impatient.cancel()
    await asyncio.wait((impatient,))
    ports.claim(23001, HELLO)
    assert await patient is HELLO
