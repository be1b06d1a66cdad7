"""Tunnels move to whoever serves in our place: each session is ended while nothing runs in it, and its client dials
again.

For that moment the tunnel's port is taken from the table, here and at other members, so that requests wait there until
the client is back (HP_TUNNEL_HOLD), and what runs may end. Where something goes on for longer, such as a download,
the port is offered again, and the next try is later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from harp.tunnel.server.group import TunnelGroup
from harp.tunnel.server.tunnel import Tunnel

STEP = 0.05  # seconds between the first tries of two tunnels, so that not all clients dial at once
PATIENCE = 0.5  # seconds for what runs to end; requests wait as long
AGAIN = 2.0  # seconds until the next try
LOOK = 0.02  # seconds
REASON = "another process of HaRP has taken over"


async def hand_over(groups: Sequence[TunnelGroup]) -> None:
    """End all tunnels, one after another, until cancelled: those under way may still log in."""
    begun: set[Tunnel] = set()
    async with asyncio.TaskGroup() as moves:
        while True:
            tunnels = [tunnel for group in groups for tunnel in group.tunnels.values()]
            for tunnel in [tunnel for tunnel in tunnels if tunnel not in begun]:
                begun.add(tunnel)
                moves.create_task(_move(tunnel))
                await asyncio.sleep(STEP)
            await asyncio.sleep(LOOK)


async def _move(tunnel: Tunnel) -> None:
    while not tunnel.closed:
        tunnel.withhold()
        for _ in range(int(PATIENCE / LOOK)):
            if not tunnel.busy:
                tunnel.close(REASON)
                return
            await asyncio.sleep(LOOK)
        tunnel.offer_again()
        await asyncio.sleep(AGAIN)
