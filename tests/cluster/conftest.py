"""Linked members, and the clock that they all go by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.cluster.world import MemberWorld, link
from tests.fakes.clock import Clock
from tests.fakes.waiting import settled

Start = Callable[[str], Awaitable[MemberWorld]]


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    clock = Clock()
    assert clock.deadlines.now == clock.now  # made here, where a loop runs
    yield clock
    clock.stop()
    await settled()


@pytest.fixture
async def start(clock: Clock) -> AsyncIterator[Start]:
    """Starts members, each linked with those before it."""
    members: list[MemberWorld] = []

    async def begin(name: str) -> MemberWorld:
        member = MemberWorld(name, clock)
        await member.server.start()
        for other in members:
            await link(member, other)
        members.append(member)
        return member

    yield begin
    for member in members:
        await member.close()


@pytest.fixture
async def one(start: Start) -> MemberWorld:
    return await start("1")


@pytest.fixture
async def two(one: MemberWorld, start: Start) -> MemberWorld:
    return await start("2")
