"""Connect to the address of a host that answers first (RFC 8305, without its preference for IPv6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from harp.errors import Unreachable

Connected = tuple[asyncio.BaseTransport, asyncio.BaseProtocol]

STAGGER = 0.25  # seconds an address has to itself before the next one is tried beside it
MOST = 8  # addresses


async def connect_first(
    addresses: Sequence[str], connect: Callable[[str], Coroutine[Any, Any, Connected]], stagger: float = STAGGER
) -> Connected:
    """Connect to the first of `addresses` that can be, in their order.

    Raises the Unreachable of the preferred address when none can. Connections that come too late are closed.
    """
    if len(addresses) == 1:
        return await connect(addresses[0])
    tries: list[asyncio.Task[Connected]] = []
    try:
        for address in addresses[:MOST]:
            tries.append(asyncio.get_running_loop().create_task(connect(address)))
            if (found := await _first(tries, stagger)) is not None:
                return found
        while not all(one.done() for one in tries):
            if (found := await _first(tries, None)) is not None:
                return found
        return tries[0].result()  # raises
    finally:
        for one in tries:
            one.cancel()
            one.add_done_callback(_too_late)


async def _first(tries: list[asyncio.Task[Connected]], timeout: float | None) -> Connected | None:  # noqa: ASYNC109
    """Wait until one has ended; its connection. None = no connection, or nothing within the time."""
    await asyncio.wait([one for one in tries if not one.done()], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for one in tries:
        if one.done() and not isinstance(one.exception(), Unreachable):
            tries.remove(one)
            return one.result()
    return None


def _too_late(one: asyncio.Task[Connected]) -> None:
    if not one.cancelled() and one.exception() is None:
        transport = one.result()[0]
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
