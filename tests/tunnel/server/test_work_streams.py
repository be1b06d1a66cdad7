"""Work streams: asked for, waited for, started, ended (F 5.5, F 5.6)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from harp.errors import TunnelAway
from harp.settings import Settings
from harp.tunnel.server.claims import Claim
from harp.tunnel.server.tunnel import Tunnel
from harp.wire.frp import Ping, Pong, ReqWorkConn, StartWorkConn
from tests.fakes.clock import Clock
from tests.fakes.transport import JoinedTransport, Recorder
from tests.fakes.waiting import settled, until
from tests.tunnel.server.world import Start, TunnelWorld, beside


@pytest.mark.parametrize(("mux", "version"), [(True, 1), (True, 2), (False, 1), (False, 2)])
async def test_a_waiting_work_stream_is_started_and_replaced(world: TunnelWorld, mux: bool, version: int) -> None:
    client = world.client(mux=mux, version=version)
    work = await client.offer()
    offer = await world.ports.wait(23001, 5)
    transport, user = await offer.connect(Recorder)
    assert isinstance(user, Recorder)
    transport.write(b"GET / HTTP/1.1\r\n")
    assert await work.next(StartWorkConn) == StartWorkConn("my_app")
    await client.control.next(ReqWorkConn)
    await until(lambda: len(work.end.received) > 30)
    await settled()
    assert work.rest() == b"GET / HTTP/1.1\r\n"
    work.end.transport.write(b"HTTP/1.1 200 OK\r\n")
    work.end.transport.close()
    await user.until(event="lost")
    assert user.received == b"HTTP/1.1 200 OK\r\n"
    assert user.events == ["made", "end", "lost"]


async def test_a_connection_does_not_suspend_while_a_work_stream_waits(world: TunnelWorld) -> None:
    client = world.client()
    await client.offer()
    offer = await world.ports.wait(23001, 5)
    with pytest.raises(StopIteration) as finished:
        offer.connect(Recorder).__await__().__next__()
    assert finished.value.value[1].events == ["made"]


async def test_connections_wait_for_work_streams_in_order(world: TunnelWorld) -> None:
    client = world.client()
    await client.login()
    await client.claim()
    world.clock.move(1)
    offer = world.ports.get(23001)
    assert offer is not None
    first, second = beside(offer.connect(Recorder)), beside(offer.connect(Recorder))
    await settled()
    one, two = await client.work(), await client.work()
    (await first)[0].write(b"first")
    await second
    await one.next(StartWorkConn)
    await two.next(StartWorkConn)
    await until(lambda: one.rest() == b"first")


async def test_work_streams_that_the_client_has_ended_are_not_used(world: TunnelWorld) -> None:
    client = world.client()
    work = await client.offer()
    work.end.transport.close()
    await until(lambda: world.server.facts()[0].streams == 2)
    offer = await world.ports.wait(23001, 5)
    transport, _ = await offer.connect(Recorder)
    assert not transport.is_closing()


async def test_a_client_that_gives_no_work_stream_is_waited_for_10_seconds(world: TunnelWorld, clock: Clock) -> None:
    client = world.client()
    await client.login()
    await client.claim()
    clock.move(1)
    offer = world.ports.get(23001)
    assert offer is not None
    waiting = beside(offer.connect(Recorder))
    await settled()
    clock.move(9.5)
    await settled()
    assert not waiting.done()
    clock.move(0.5)
    with pytest.raises(TunnelAway, match="no work stream within 10 s"):
        await waiting


async def test_a_tunnel_that_ends_fails_those_who_wait_for_it(world: TunnelWorld, clock: Clock) -> None:
    client = world.client()
    await client.login()
    await client.claim()
    clock.move(1)
    offer = world.ports.get(23001)
    assert offer is not None
    waiting = beside(offer.connect(Recorder))
    await settled()
    client.hang_up()
    with pytest.raises(TunnelAway, match="the tunnel was closed"):
        await waiting
    with pytest.raises(TunnelAway, match="the tunnel was closed"):
        await offer.connect(Recorder)


async def test_a_work_stream_for_somebody_who_has_gone_is_kept_for_the_next(world: TunnelWorld, clock: Clock) -> None:
    client = world.client()
    await client.login(pool_count=0)
    await client.claim()
    clock.move(1)
    offer = world.ports.get(23001)
    assert offer is not None
    waiting = beside(offer.connect(Recorder))
    await settled()
    assert isinstance(offer, Claim)
    assert isinstance(offer.tunnel, Tunnel)
    work = JoinedTransport(1000)
    offer.tunnel.add_work(work, 1)
    waiting.cancel()
    transport, _ = await offer.connect(Recorder)
    assert transport is work
    assert waiting.cancelled()


async def test_a_pool_that_is_full_takes_no_more(world: TunnelWorld) -> None:
    client = world.client()
    await client.login(pool_count=1)
    works = [await client.work() for _ in range(12)]
    await works[-1].end.until(event="end")
    assert all(work.end.events == ["made"] for work in works[:11])


@pytest.mark.parametrize("mux", [True, False])
async def test_a_work_stream_with_another_run_id_is_refused(world: TunnelWorld, mux: bool) -> None:
    victim, client = world.client(), world.client(mux=mux)
    await victim.login()
    await client.login()
    for run_id in (victim.run_id, "unknown", ""):
        work = await client.work(run_id)
        assert "no client control" in (await work.next(StartWorkConn)).error
        await work.end.until(event="end")


async def test_a_client_that_speaks_on_a_waiting_work_stream_loses_it(world: TunnelWorld) -> None:
    client = world.client()
    work = await client.offer()
    work.send_raw(b"too early")
    await work.end.until(event="lost")


async def test_an_aborted_download_resets_the_stream_and_leaves_nothing(world: TunnelWorld) -> None:
    client = world.client()
    work = await client.offer()
    offer = await world.ports.wait(23001, 5)
    transport, _ = await offer.connect(Recorder)
    await work.next(StartWorkConn)
    work.end.transport.write(bytes(1 << 20))
    transport.abort()
    await work.end.until(event="lost")
    await until(lambda: world.server.facts()[0].streams == 2)


async def test_streams_of_a_tunnel_have_a_limit(settings: Settings, start: Start) -> None:
    world = await start(replace(settings, limits=replace(settings.limits, tunnel_streams=3)))
    client = world.client()
    await client.login()
    works = [await client.work() for _ in range(3)]
    await works[-1].end.until(event="lost")
    assert works[0].end.events == ["made"]


async def test_a_stream_without_a_first_message_is_ended_and_the_tunnel_lives(world: TunnelWorld, clock: Clock) -> None:
    client = world.client()
    await client.login()
    silent = await client.stream()
    await until(lambda: world.server.facts()[0].streams == 2)
    clock.move(10)
    await silent.until(event="end")
    client.control.send(Ping())
    await client.control.next(Pong)


async def test_work_connections_without_yamux_are_no_guests(world: TunnelWorld) -> None:
    client = world.client(mux=False)
    await client.offer()
    await until(lambda: world.server.facts()[0].streams == 2)
    assert world.server.pending == 0
