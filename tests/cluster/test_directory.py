"""Who holds which tunnel, as all members see it, and connections through a tunnel of another one."""

from __future__ import annotations

import asyncio

import pytest

from harp.errors import TunnelAway
from harp.tunnel.server.claims import Claim
from harp.wire.frp import CloseProxy, NewProxyResp, StartWorkConn
from tests.cluster.conftest import Start
from tests.cluster.world import MemberWorld, far_end, link, through
from tests.fakes.transport import Recorder
from tests.fakes.waiting import settled, until
from tests.tunnel.peer import good_login
from tests.tunnel.server.world import beside


async def test_a_port_held_by_one_member_is_offered_by_all(one: MemberWorld, two: MemberWorld, start: Start) -> None:
    three = await start("3")
    await one.client().offer("my_app", 23001)
    for member in (two, three):
        assert (await member.offered(23001)).name == "my_app"
        assert member.ports.items()[0][0] == 23001


async def test_a_member_that_comes_later_is_told_what_there_is(one: MemberWorld, start: Start) -> None:
    await one.client().offer("my_app", 23001)
    two = await start("2")
    assert (await two.offered(23001)).name == "my_app"


async def test_bytes_go_both_ways_over_one_hop_and_ends_are_passed_on(one: MemberWorld, two: MemberWorld) -> None:
    work = await one.client().offer()
    near = await through(await two.offered(23001))
    far = await far_end(work)
    near.transport.write(b"a request")
    await work.end.until(size=len(work.end.received) + 9)
    assert work.rest() == b"a request"
    far.transport.write(b"an answer")
    await near.until(size=9)
    assert near.received == b"an answer"
    near.transport.write_eof()
    await far.until(event="end")
    far.transport.close()
    await near.until(event="lost")
    assert near.error is None


async def test_a_reset_is_passed_on(one: MemberWorld, two: MemberWorld) -> None:
    work = await one.client().offer()
    near = await through(await two.offered(23001))
    far = await far_end(work)
    far.transport.abort()
    await near.until(event="lost")
    assert isinstance(near.error, ConnectionResetError)


async def test_a_reader_that_does_not_read_stops_the_writer_with_bounded_memory(
    one: MemberWorld, two: MemberWorld
) -> None:
    work = await one.client().offer()
    near = await through(await two.offered(23001))
    far = await far_end(work)
    near.transport.pause_reading()
    piece, written = bytes(65536), 0
    while "pause" not in far.events or written < 4 << 20:
        if "pause" in far.events:
            break
        far.transport.write(piece)
        written += len(piece)
        await settled()
    assert written < 4 << 20
    near.transport.resume_reading()
    await far.until(event="resume")
    await near.until(size=written)


async def test_other_streams_go_on_while_one_is_not_read(one: MemberWorld, two: MemberWorld) -> None:
    client = one.client()
    await client.login()
    assert (await client.claim()).error == ""
    first, second = await client.work(), await client.work()
    slow = await through(await two.offered(23001))
    far = await far_end(first)
    slow.transport.pause_reading()
    for _ in range(64):
        far.transport.write(bytes(65536))
    quick = await through(two.offer(23001))
    (await far_end(second)).transport.write(b"an answer")
    await quick.until(size=9)
    assert len(slow.received) < 64 * 65536


async def test_no_stream_within_the_limit_is_said_as_for_a_tunnel_here(one: MemberWorld, two: MemberWorld) -> None:
    client = one.client()
    await client.offer()
    offer = await two.offered(23001)
    await through(offer)
    await through(offer)
    waiting = beside(offer.connect(Recorder))
    await settled()
    await until(lambda: "1 wait" in repr(one.group.tunnels[client.run_id]))
    one.clock.move(11)
    with pytest.raises(TunnelAway, match="gave no work stream within 10 s"):
        await waiting


async def test_a_member_that_is_stuck_is_given_up_after_a_while(one: MemberWorld, two: MemberWorld) -> None:
    await one.client().offer()
    offer = await two.offered(23001)
    link_to_one = two.members.links["1"]
    link_to_one.mux.pause_writing()  # as when its socket is full: nothing is sent
    waiting = beside(offer.connect(Recorder))
    await settled()
    two.clock.move(13)
    with pytest.raises(TunnelAway, match="member 1 gave no answer within 12 s"):
        await waiting


async def test_whoever_stops_waiting_leaves_no_stream_behind(one: MemberWorld, two: MemberWorld) -> None:
    client = one.client()
    await client.offer()
    offer = await two.offered(23001)
    await through(offer)
    await through(offer)
    waiting = beside(offer.connect(Recorder))
    await until(lambda: "1 wait" in repr(one.group.tunnels[client.run_id]))
    streams = two.members.links["1"].mux.streams
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: two.members.links["1"].mux.streams == streams - 1)


async def test_a_port_that_is_free_again_is_free_everywhere(one: MemberWorld, two: MemberWorld) -> None:
    client = one.client()
    await client.offer()
    await two.offered(23001)
    client.control.send(CloseProxy("my_app"))
    await until(lambda: two.ports.get(23001) is None)
    work = await two.client().offer()
    assert (await one.offered(23001)).name == "my_app"
    assert work.rest() == b""


async def test_a_request_that_comes_a_moment_too_late_is_refused_not_passed_on(
    one: MemberWorld, two: MemberWorld, start: Start
) -> None:
    three = await start("3")
    await one.client().offer()
    stale = await two.offered(23001)
    await three.offered(23001)
    one.ports.release(23001, one.offer(23001))
    with pytest.raises(TunnelAway, match="no tunnel is connected for port 23001"):
        await stale.connect(Recorder)


async def test_a_member_that_is_lost_takes_its_tunnels_along(one: MemberWorld, two: MemberWorld) -> None:
    await one.client().offer()
    near = await through(await two.offered(23001))
    released: list[int] = []
    two.ports.watch(lambda port, offer: released.append(port))
    one.members.links["2"].abort("a test")
    await until(lambda: two.ports.get(23001) is None)
    await near.until(event="lost")
    assert released == [23001]
    assert two.happened[-1] == "lost 1"
    await link(one, two)
    assert (await two.offered(23001)).name == "my_app"


# Who may have what


@pytest.mark.parametrize(("name", "port"), [("my_app", 23002), ("other", 23001)])
async def test_a_living_tunnel_elsewhere_keeps_its_name_and_port(
    one: MemberWorld, two: MemberWorld, name: str, port: int
) -> None:
    await one.client().offer("my_app", 23001)
    await two.offered(23001)
    second = two.client()
    await second.login()
    refused = await second.claim(name, port)
    assert refused.error == ("port already used" if name == "other" else "proxy [my_app] already exists")
    assert two.offer(23001).name == "my_app"


async def test_the_limit_of_tunnels_is_one_for_all_members(one: MemberWorld, two: MemberWorld) -> None:
    first = one.client()
    await first.offer("my_app", 23001)
    await two.offered(23001)
    two.group.limit = 1
    refused = await two.client().try_login(good_login())
    assert refused.error == "1 tunnels are connected, which is the limit of this Nextcloud"
    again = await two.client().try_login(good_login(run_id=first.run_id))
    assert again.error == "", "whoever comes back takes its own place"


async def test_a_dead_tunnel_elsewhere_gives_way(one: MemberWorld, two: MemberWorld) -> None:
    dead = one.client()
    await dead.offer()
    dead.freeze()
    await two.offered(23001)
    second = two.client()
    await second.login()
    claiming = beside(second.claim())
    for _ in range(40):
        await settled()
        one.clock.move(0.25)
        if claiming.done():
            break
    assert (await claiming) == NewProxyResp("my_app", remote_addr=":23001")
    await until(lambda: one.group.tunnels == {})


async def test_a_client_that_connects_again_elsewhere_has_its_port_at_once(one: MemberWorld, two: MemberWorld) -> None:
    client = one.client()
    await client.offer()
    await two.offered(23001)
    client.freeze()  # its old connection is half-open: nobody says good-bye
    again = two.client()
    await again.login(run_id=client.run_id)
    assert again.run_id == client.run_id
    assert (await again.claim()).error == ""
    await until(lambda: one.group.tunnels == {})
    two.clock.move(1.1)  # offered without proof that the client knows
    assert isinstance(await two.offered(23001), Claim)
    assert not isinstance(await one.offered(23001), Claim)


async def test_an_unknown_run_id_is_not_taken_over(one: MemberWorld, two: MemberWorld) -> None:
    client = two.client()
    await client.login(run_id="0123456789abcdef")
    assert client.run_id != "0123456789abcdef"
    await settled()
    assert one.group.knows(client.run_id)
    client.hang_up()
    await until(lambda: not one.group.knows(client.run_id))


async def test_when_two_members_have_granted_the_same_the_newest_login_wins(start: Start) -> None:
    one = await start("1")
    other = MemberWorld("2", one.clock)
    await other.server.start()
    one.wall, other.wall = 100.0, 200.0
    await one.client().offer("my_app", 23001)
    await other.client().offer("my_app", 23001)
    await one.offered(23001)
    await other.offered(23001)
    await link(one, other)
    await until(lambda: one.group.tunnels == {})
    await until(lambda: one.ports.get(23001) is not None and not isinstance(one.offer(23001), Claim))
    assert isinstance(other.offer(23001), Claim)
    await other.close()


# Clients without yamux


async def test_a_work_connection_that_comes_to_another_member_is_handed_over(
    one: MemberWorld, two: MemberWorld
) -> None:
    client = one.client(mux=False)
    await client.login(pool_count=1)
    assert (await client.claim()).error == ""
    await until(lambda: two.group.knows(client.run_id))
    client.server = two.server  # the next connections are another member's
    work, _ = await client.work(), await client.work()
    await one.offered(23001)
    connecting = beside(one.offer(23001).connect(Recorder))
    await work.next(StartWorkConn)
    _, near = await connecting
    assert isinstance(near, Recorder)
    near.transport.write(b"a request")
    await work.end.until(size=len(work.end.received) + 9)
    assert work.rest() == b"a request"
    work.end.transport.write(b"an answer")
    await near.until(size=9)
    near.transport.close()
    await work.end.until(event="lost")


async def test_a_work_connection_of_nobody_is_refused(one: MemberWorld, two: MemberWorld) -> None:
    client = one.client(mux=False)
    await client.login()
    client.server = two.server
    work = await client.work("a run id that nobody has")
    assert (await work.next(StartWorkConn)).error == "no client control found for this run id"
    await work.end.until(event="end")


async def test_a_work_connection_whose_tunnel_has_just_ended_is_closed(one: MemberWorld, two: MemberWorld) -> None:
    client = one.client(mux=False)
    await client.login()
    await until(lambda: two.group.knows(client.run_id))
    one.group.others = None  # it tells nobody
    client.hang_up()
    await until(lambda: one.group.tunnels == {})
    client.server = two.server
    work = await client.work()
    await work.end.until(event="lost")
