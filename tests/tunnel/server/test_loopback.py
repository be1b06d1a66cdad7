"""HP_TUNNEL_LISTEN: claimed ports on 127.0.0.1."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import pytest
from msgspec.structs import replace

from harp.settings import Settings
from harp.wire.frp import StartWorkConn
from tests.fakes.transport import Recorder
from tests.fakes.waiting import until
from tests.tunnel.server.world import Start, TunnelWorld


def free_port() -> int:
    for port in range(23900, 24000):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no free port")


@pytest.fixture
async def listening(settings: Settings, start: Start) -> TunnelWorld:
    return await start(replace(settings, tunnel=replace(settings.tunnel, listen=True)))


async def test_a_claimed_port_can_be_opened_on_loopback_while_it_is_claimed(listening: TunnelWorld) -> None:
    client, port = listening.client(), free_port()
    work = await client.offer(port=port)
    _, user = await asyncio.get_running_loop().create_connection(Recorder, "127.0.0.1", port)
    source = user.transport.get_extra_info("sockname")
    start = await work.next(StartWorkConn)
    assert start == StartWorkConn("my_app", "127.0.0.1", "127.0.0.1", source[1], port)
    user.transport.write(b"ping")
    await until(lambda: work.rest() == b"ping")
    work.end.transport.write(b"pong")
    work.end.transport.close()
    await user.until(event="end")
    assert user.received == b"pong"
    client.hang_up()
    await until(lambda: not listening.server.facts())
    with pytest.raises(ConnectionRefusedError):
        await asyncio.get_running_loop().create_connection(Recorder, "127.0.0.1", port)


async def test_a_port_that_something_else_listens_on_is_unavailable(listening: TunnelWorld) -> None:
    client = listening.client()
    await client.login()
    with closing(socket.create_server(("127.0.0.1", free_port()))) as taken:
        assert (await client.claim(port=taken.getsockname()[1])).error == "port unavailable"
