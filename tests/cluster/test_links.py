"""Links themselves: greetings, questions, and peers that break the rules."""

from __future__ import annotations

import asyncio
import socket

import pytest

from harp.errors import TunnelAway
from harp.net.turns import Turns
from harp.tunnel.mux import MuxSession
from harp.wire.member import Freed, Greeted, Greeting, Talk, ToPort, WorkFor, packed
from tests.cluster.world import MemberWorld, link
from tests.fakes.transport import Recorder
from tests.fakes.waiting import settled, until

BROKEN = [b"\xff\xff\xff\xff", b"\0\0\0\x02{}", packed(Freed(1)), packed(Greeting("9", "boot", "1"))]


async def stranger(member: MemberWorld) -> MuxSession:
    """The far end of a link that says nothing by itself."""
    here, there = socket.socketpair()
    await member.members.link("9", here, 1)
    session = MuxSession(member.clock.deadlines, client=False, accept=Recorder, turns=Turns())
    await asyncio.get_running_loop().create_connection(lambda: session, sock=there)
    return session


async def test_members_talk_when_both_have_said_who_they_are(one: MemberWorld, two: MemberWorld) -> None:
    assert one.members.talking == {"2"}
    assert two.members.talking == {"1"}
    assert one.happened == ["talks with ['2']"]


async def test_who_has_begun_to_talk_before_us_is_greeted_as_well(one: MemberWorld) -> None:
    here, there = socket.socketpair()
    heard: list[Recorder] = []

    def accept() -> Recorder:
        heard.append(Recorder())
        return heard[-1]

    session = MuxSession(one.clock.deadlines, client=False, accept=accept, turns=Turns())
    await asyncio.get_running_loop().create_connection(lambda: session, sock=there)
    session.open(Recorder)[0].write(packed(Talk("9", False, "boot")))
    await settled()
    await one.members.link("9", here, 1)
    await until(lambda: heard and packed(Greeted()) in heard[0].received)


async def test_a_question_has_an_answer_of_any_length(one: MemberWorld, two: MemberWorld) -> None:
    answer = await two.members.links["1"].ask("name", "of yours")
    assert answer == b"1 of yours " * 100_000


async def test_a_question_that_nobody_knows_is_refused(one: MemberWorld, two: MemberWorld) -> None:
    with pytest.raises(TunnelAway, match="colour is not known here"):
        await two.members.links["1"].ask("colour")


@pytest.mark.parametrize("asked", [ToPort(23001, instance="x"), WorkFor("run", 1, instance="x")])
async def test_what_is_asked_of_another_nextcloud_is_refused(
    one: MemberWorld, two: MemberWorld, asked: ToPort | WorkFor
) -> None:
    with pytest.raises(TunnelAway, match="this Nextcloud is not known here"):
        await two.members.links["1"].join(asked, Recorder)


async def test_a_new_link_with_a_member_takes_the_place_of_the_old(one: MemberWorld, two: MemberWorld) -> None:
    await one.client().offer()
    await two.offered(23001)
    await link(one, two)
    assert (await two.offered(23001)).name == "my_app"
    assert "lost 1" not in two.happened
    assert len(two.members.links) == 1


async def test_a_stream_that_says_nothing_is_dropped(one: MemberWorld) -> None:
    session = await stranger(one)
    _, end = session.open(Recorder)
    await settled()
    await until(lambda: one.members.links["9"].mux.streams == 2)
    one.clock.move(11)
    await end.until(event="lost")


@pytest.mark.parametrize("data", [*BROKEN, packed(ToPort(1)) + b"early"])
async def test_who_breaks_the_rules_is_not_linked_any_more(one: MemberWorld, data: bytes) -> None:
    session = await stranger(one)
    _, end = session.open(Recorder)
    end.transport.write(data)
    if data.endswith(b"early"):
        await end.until(size=1)
        assert b"no tunnel is connected for port 1" in end.received
        return
    await until(lambda: one.members.links == {})
    assert one.happened[-1] == "lost 9"


async def test_news_that_are_not_read_end_the_link_before_they_fill_the_memory(one: MemberWorld) -> None:
    session = await stranger(one)
    await settled()
    reading = session.get_extra_info("socket")
    assert reading is not None
    for number in range(400_000):
        if not one.members.links:
            break
        one.members.tell(Freed(number))
    await until(lambda: one.members.links == {})


async def test_a_member_that_stops_is_forgotten_without_a_word(one: MemberWorld, two: MemberWorld) -> None:
    await two.members.close()
    await until(lambda: one.members.talking == set())
    assert "lost 1" not in two.happened
