"""Several addresses of one host: the first that can be connected."""

from __future__ import annotations

import asyncio

import pytest

from harp.errors import Unreachable
from harp.net.race import MOST, Connected, connect_first
from tests.fakes.transport import MemoryTransport
from tests.fakes.waiting import settled

LONG = 1000.0  # seconds: nothing is tried for being late


class Host:
    """Addresses that answer, refuse, or do nothing until they are told to."""

    def __init__(self, **addresses: str) -> None:
        self._addresses = addresses
        self.tried: list[str] = []
        self.transports: dict[str, MemoryTransport] = {}
        self.late = asyncio.Event()
        self.begun = asyncio.Condition()

    async def connect(self, address: str) -> Connected:
        async with self.begun:
            self.tried.append(address)
            self.begun.notify_all()
        match self._addresses[address]:
            case "refuses":
                raise Unreachable(f"{address} refuses")
            case "is late":
                await self.late.wait()
        transport = self.transports[address] = MemoryTransport()
        return transport, asyncio.Protocol()


async def test_the_first_address_is_enough() -> None:
    host = Host(a="answers", b="answers")
    assert (await connect_first(["a", "b"], host.connect, LONG))[0] is host.transports["a"]
    assert host.tried == ["a"]


async def test_the_next_one_is_tried_as_soon_as_one_refuses() -> None:
    host = Host(a="refuses", b="refuses", c="answers")
    assert (await connect_first(["a", "b", "c"], host.connect, LONG))[0] is host.transports["c"]
    assert host.tried == ["a", "b", "c"]


async def test_the_next_one_is_tried_beside_one_that_is_late_and_that_one_is_given_up() -> None:
    host = Host(a="is late", b="answers")
    assert (await connect_first(["a", "b"], host.connect, 0.001))[0] is host.transports["b"]
    host.late.set()
    await settled()
    assert "a" not in host.transports


async def test_a_late_one_that_comes_first_after_all_wins() -> None:
    host = Host(a="is late", b="is late")
    connecting = asyncio.create_task(connect_first(["a", "b"], host.connect, 0.001))
    async with host.begun:
        await host.begun.wait_for(lambda: host.tried == ["a", "b"])
    host.late.set()
    transport, _ = await connecting
    assert transport is host.transports["a"]
    assert "b" not in host.transports or host.transports["b"].is_closing()


async def test_when_none_answers_the_preferred_one_says_why() -> None:
    host = Host(a="refuses", b="refuses")
    with pytest.raises(Unreachable, match="a refuses"):
        await connect_first(["a", "b"], host.connect, LONG)


async def test_not_every_address_of_a_crowd_is_tried() -> None:
    host = Host(**{f"a{number}": "refuses" for number in range(100)})
    with pytest.raises(Unreachable):
        await connect_first([f"a{number}" for number in range(100)], host.connect, LONG)
    assert len(host.tried) == MOST


async def test_who_gives_up_leaves_nothing_behind() -> None:
    host = Host(a="is late", b="is late")
    connecting = asyncio.create_task(connect_first(["a", "b"], host.connect, 0.001))
    async with host.begun:
        await host.begun.wait_for(lambda: host.tried == ["a", "b"])
    connecting.cancel()
    await asyncio.wait([connecting])
    host.late.set()
    await settled()
    assert host.transports == {}
