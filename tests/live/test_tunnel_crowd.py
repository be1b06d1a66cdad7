"""Very many tunnel clients behind one address, all at once: after a restart of HaRP, or of a router."""

from __future__ import annotations

import asyncio
import ssl
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder
from tests.live import frp
from tests.live.crowd import mutual
from tests.live.frp import Gateway
from tests.live.product import KEY
from tests.live.world import raise_descriptor_limit
from tests.tunnel.peer import FrpClient, good_login

CROWD = 1000
STALLED = 1200  # connections that never say a word, more than there may be
PATIENCE = 180.0  # seconds for all, clients and server sharing one processor


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frp.make_certificates(tmp_path_factory.mktemp("certs"))


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    """For the clients; the server has the real one."""
    clock = Clock()
    yield clock
    clock.stop()


def client(gateway: Gateway, tls: ssl.SSLContext, clock: Clock) -> FrpClient:
    assert gateway.server is not None
    return FrpClient(gateway.server, clock, tls=tls)


@pytest.mark.alone
@pytest.mark.timeout(240)
async def test_a_thousand_tunnels_behind_one_address_come_up_without_a_drop(certificates: Path) -> None:
    assert raise_descriptor_limit(4096) >= CROWD + 100
    with capture_logs() as logged:
        async with frp.gateway(certificates) as gateway, asyncio.timeout(PATIENCE):
            command = (sys.executable, "-m", "tests.live.crowd", str(gateway.port), str(certificates), str(CROWD))
            crowd = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
            try:
                assert crowd.stdout is not None
                assert await crowd.stdout.readline() == b"%d\n" % CROWD
                assert gateway.server is not None
                assert len(gateway.server.facts()) == CROWD
            finally:
                crowd.kill()
                await crowd.wait()
    assert [line for line in logged if line["log_level"] == "warning"] == []


async def test_stalled_connections_of_an_address_do_not_shut_out_its_clients(certificates: Path, clock: Clock) -> None:
    raise_descriptor_limit(4096)
    loop = asyncio.get_running_loop()
    async with frp.gateway(certificates) as gateway, asyncio.timeout(PATIENCE):
        for _ in range(STALLED):
            transport, _ = await loop.create_connection(Recorder, "127.0.0.1", gateway.port)
            clock.transports.append(transport)
        began = loop.time()
        answer = await client(gateway, mutual(certificates), clock).try_login(good_login(metas={"token": KEY}))
        assert answer.error == ""
        assert loop.time() - began < 5
