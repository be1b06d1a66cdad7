"""What members tell each other besides tunnels."""

from __future__ import annotations

from harp.policy.exapp import ExApp, Level, Route
from harp.wire.member import Operated, Renewed
from tests.cluster.conftest import Start
from tests.cluster.world import MemberWorld
from tests.fakes.waiting import settled, until

APP = ExApp("app", "secret", "1.2", "10.0.0.1", 80, (Route("^/public", Level.PUBLIC, frozenset({401})),))
STRANGER = "192.0.2.9"


async def test_strikes_are_counted_together_and_ban_everywhere(one: MemberWorld, two: MemberWorld) -> None:
    versions = [member.instance.version for member in (one, two)]
    one.instance.strike(STRANGER, "a wrong key")
    two.instance.strike(STRANGER, "a wrong key")
    await settled()
    assert not one.instance.banned(STRANGER)
    one.instance.strike(STRANGER, "a wrong token")
    await until(lambda: two.instance.banned(STRANGER))
    assert one.instance.banned(STRANGER) == two.instance.banned(STRANGER) == 300.0
    assert [ban.reason for ban in two.instance.bans.list()] == ["a wrong token"]
    assert all(member.instance.version > before for member, before in zip((one, two), versions, strict=True))


async def test_each_counts_its_own_strikes_and_bans_for_the_metrics(one: MemberWorld, two: MemberWorld) -> None:
    for member in (one, one, two):
        member.instance.strike(STRANGER, "a wrong key")
        await settled()
    await until(lambda: one.instance.banned(STRANGER))
    assert [member.instance.banning.strikes for member in (one, two)] == [2, 1]
    assert [member.instance.banning.begun for member in (one, two)] == [0, 1]


async def test_a_peer_that_may_be_a_proxy_has_its_own_measure_everywhere(one: MemberWorld, two: MemberWorld) -> None:
    for _ in range(3):
        one.instance.strike(STRANGER, "a wrong key", "203.0.113.1")
    await until(lambda: two.instance.banned(STRANGER))
    assert not two.instance.banned("203.0.113.1")


async def test_a_lifted_ban_is_lifted_everywhere(one: MemberWorld, two: MemberWorld) -> None:
    for _ in range(3):
        one.instance.strike(STRANGER, "a wrong key")
    await until(lambda: two.instance.banned(STRANGER))
    assert two.instance.lift(STRANGER)
    await until(lambda: not one.instance.banned(STRANGER))
    one.instance.strike(STRANGER, "a wrong key")
    await settled()
    assert not two.instance.banned(STRANGER)


async def test_a_fresh_member_is_told_of_bans_and_of_strikes_with_their_age(one: MemberWorld, start: Start) -> None:
    for _ in range(3):
        one.instance.strike(STRANGER, "a wrong key")
    one.instance.strike("192.0.2.10", "another")
    one.clock.move(100)
    two = await start("2")
    assert two.instance.banned(STRANGER) == 200.0
    assert not two.instance.banned("192.0.2.10")
    three = await start("3")  # told by both, and still counted rightly
    assert three.instance.banned(STRANGER) == 200.0
    for _ in range(2):
        three.instance.strike("192.0.2.10", "another")
    await until(lambda: one.instance.banned("192.0.2.10"))
    one.clock.move(201)
    assert not any(member.instance.banned(STRANGER) for member in (one, two, three))


async def test_a_record_that_one_is_brought_is_known_to_all(one: MemberWorld, two: MemberWorld) -> None:
    one.instance.put(APP)
    await until(lambda: two.instance.records.get("app") == APP)
    two.instance.delete("App")
    await until(lambda: one.instance.records.get("app") is None)


async def test_certificates_and_an_operators_changes_reach_all(one: MemberWorld, two: MemberWorld) -> None:
    one.members.tell(Renewed())
    one.members.tell(Operated("level", "debug"))
    await until(lambda: two.happened[-2:] == ["certificates renewed", "level debug"])


async def test_the_doctors_steps_are_expected_everywhere_until_its_walk_is_over(
    one: MemberWorld, two: MemberWorld
) -> None:
    nonce = one.instance.walks.begin()
    step = f"/doctor/{nonce}/hello".encode()
    await until(lambda: two.instance.expects(step))
    one.instance.walks.end(nonce)
    await until(lambda: not two.instance.expects(step))
