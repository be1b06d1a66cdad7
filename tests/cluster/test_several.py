"""Several Nextclouds at linked members: each for itself, whenever it comes and goes."""

from __future__ import annotations

import pytest

from harp.errors import TunnelAway
from tests.cluster.world import MemberWorld, far_end
from tests.fakes.transport import Recorder
from tests.fakes.waiting import settled, until

STRANGER = "192.0.2.9"


async def test_the_same_port_and_name_of_two_nextclouds_are_two(one: MemberWorld, two: MemberWorld) -> None:
    await one.client().offer("my_app", 23001)
    await two.offered(23001)
    for member in (one, two):
        await member.serve_another("blue")
    work = await two.client().offer("my_app", 23001)
    ports, _ = one.others["blue"]
    await until(lambda: ports.get(23001) is not None)
    offer = ports.get(23001)
    assert offer is not None
    _, near = await offer.connect(Recorder)
    assert isinstance(near, Recorder)
    (await far_end(work)).transport.write(b"blue")
    await near.until(size=4)
    assert near.received == b"blue"
    assert one.offer(23001) is not offer


async def test_a_member_that_serves_a_nextcloud_later_is_told_what_there_is(one: MemberWorld, two: MemberWorld) -> None:
    await one.serve_another("blue")
    await one.client().offer("my_app", 23001)
    _, blue = one.others["blue"]
    for _ in range(3):
        blue.strike(STRANGER, "a wrong key")
    await settled()
    await two.serve_another("blue")
    ports, instance = two.others["blue"]
    await until(lambda: ports.get(23001) is not None)
    await until(lambda: instance.banned(STRANGER))
    assert not two.instance.banned(STRANGER)
    assert two.ports.get(23001) is None


async def test_bans_for_keys_of_nobody_are_shared_too(one: MemberWorld, two: MemberWorld) -> None:
    strangers = [member.instance.banning for member in (one, two)]  # any will do
    for member, banning in zip((one, two), strangers, strict=True):
        member.members.attach_strangers(banning)
    for _ in range(3):
        strangers[0].strike(STRANGER, "a wrong key")
    await until(lambda: strangers[1].banned(STRANGER))


async def test_a_nextcloud_that_is_served_no_more_is_not_known(one: MemberWorld, two: MemberWorld) -> None:
    for member in (one, two):
        await member.serve_another("blue")
    await one.client().offer("my_app", 23001)
    ports, _ = two.others["blue"]
    await until(lambda: ports.get(23001) is not None)
    offer = ports.get(23001)
    assert offer is not None
    await one.members.detach("blue")
    with pytest.raises(TunnelAway, match="this Nextcloud is not known here"):
        await offer.connect(Recorder)
