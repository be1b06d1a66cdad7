"""Tunnels move to another process one after another, each while nothing runs in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from harp.tunnel.server.hand_over import hand_over
from harp.wire.frp import StartWorkConn
from tests.fakes.transport import Recorder
from tests.fakes.waiting import until
from tests.tunnel.server.world import TunnelWorld

pytestmark = pytest.mark.hasty


@asynccontextmanager
async def handing_over(world: TunnelWorld) -> AsyncIterator[None]:
    """The server hands its tunnels over, inside the block."""
    task = asyncio.create_task(hand_over(world.server.groups))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("mux", [True, False])
async def test_an_idle_tunnel_is_ended_at_once(world: TunnelWorld, mux: bool) -> None:
    await world.client(mux=mux).offer()
    await world.ports.wait(23001, 5)
    async with handing_over(world):
        await until(lambda: not world.group.tunnels)
    assert world.ports.get(23001) is None


@pytest.mark.parametrize("mux", [True, False])
async def test_a_tunnel_in_use_waits_for_the_end_and_is_offered_again_meanwhile(world: TunnelWorld, mux: bool) -> None:
    client = world.client(mux=mux)
    work = await client.offer()
    offer = await world.ports.wait(23001, 5)
    _, user = await offer.connect(Recorder)
    assert isinstance(user, Recorder)
    await work.next(StartWorkConn)
    async with handing_over(world):
        await until(lambda: world.ports.get(23001) is None)  # requests wait, in case it ends now
        await until(lambda: world.ports.get(23001) is not None)
        assert len(world.group.tunnels) == 1
        work.end.transport.write(b"the rest")
        work.end.transport.close()
        await user.until(event="lost")
        assert user.received == b"the rest"
        await until(lambda: not world.group.tunnels)


async def test_tunnels_that_log_in_late_move_as_well(world: TunnelWorld) -> None:
    await world.client().offer()
    async with handing_over(world):
        await until(lambda: not world.group.tunnels)
        await world.client().offer("late", 23002)
        await until(lambda: not world.group.tunnels)
