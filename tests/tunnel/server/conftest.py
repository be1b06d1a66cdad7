"""Tunnel servers for scripted clients (tests/tunnel/peer.py)."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Iterator

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs
from structlog.typing import EventDict

from harp.settings import Address, Settings, load
from tests.fakes.clock import Clock
from tests.tunnel.peer import KEY
from tests.tunnel.server.world import Start, TunnelWorld, as_text


@pytest.fixture(scope="module")
def settings() -> Settings:
    settings = load({"HP_SHARED_KEY": KEY, "NC_INSTANCE_URL": "http://127.0.0.1:1"})
    return replace(settings, listen=replace(settings.listen, frp=(Address("127.0.0.1", 0),)))


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[EventDict]]:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    with capture_logs(processors=[as_text]) as events:
        yield events
    root.setLevel(before)
    assert KEY not in repr(events)


@pytest.fixture
async def start(clock: Clock) -> AsyncIterator[Start]:
    """Starts servers; `tls` is then required."""
    worlds: list[TunnelWorld] = []

    async def begin(settings: Settings, tls: ssl.SSLContext | None = None) -> TunnelWorld:
        worlds.append(TunnelWorld(settings, tls, clock))
        await worlds[-1].server.start()
        return worlds[-1]

    yield begin
    for world in worlds:
        await world.server.close()


@pytest.fixture
async def world(settings: Settings, start: Start) -> TunnelWorld:
    return await start(settings)
