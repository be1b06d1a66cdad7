"""Snapshots of several processes, added up."""

from __future__ import annotations

from msgspec.structs import replace

from harp.status.conditions import Condition
from harp.status.engines import EngineLine
from harp.status.merged import ended, merged
from harp.status.snapshot import BanLine, BanTotals, InstanceLine, Snapshot
from tests.fakes.facts import DIRECT, ENGINE, HELLO, NONE, SOME, TUNNEL, FakeFacts

ONE = replace(FakeFacts().snapshot(), bans=(BanLine("192.0.2.1", 100.0, "x"),), ban_totals=BanTotals(5, 1, 1))
TWO = replace(
    ONE,
    process=replace(ONE.process, started=1.6e9, cpu=2.0, memory=10, connections=3, requests=1, loop_lag=0.5),
    nextcloud=replace(ONE.nextcloud, condition=Condition(False, "no answer")),
    apps=(replace(HELLO, tunnel="not connected"), replace(DIRECT, app="third")),
    tunnels=(),
    bans=(BanLine("192.0.2.1", 99.0, "x"), BanLine("192.0.2.2", 50.0, "y")),
    ban_totals=BanTotals(2, 1, 2),
    refusals={403: 1, 404: 2},
)


def test_one_alone_is_as_it_is() -> None:
    assert merged(ONE, []) is ONE


def test_counts_are_added_and_states_are_the_worst() -> None:
    both = merged(ONE, [TWO])
    assert (both.process.requests, both.process.connections, both.process.cpu) == (5, 10, 14.5)
    assert (both.process.started, both.process.loop_lag) == (1.6e9, 0.5)
    assert both.process.descriptors == ONE.process.descriptors  # of one process, as is their limit
    assert both.nextcloud.condition == Condition(False, "no answer")
    assert both.nextcloud.calls == 2 * ONE.nextcloud.calls
    assert both.refusals == {403: 6, 503: 1, 404: 2}
    assert both.tunnels_lost == 2
    assert both.control == NONE


def test_an_exapp_is_one_line_with_all_its_requests_and_connected_where_anybody_says_so() -> None:
    both = merged(ONE, [TWO])
    assert [line.app for line in both.apps] == ["direct", "hello", "third"]
    hello = both.apps[1]
    assert hello.tunnel == merged(TWO, [ONE]).apps[1].tunnel == "connected"
    assert hello.traffic.statuses == {name: 2 * count for name, count in SOME.statuses.items()}
    assert hello.traffic.buckets == tuple(2 * count for count in SOME.buckets)
    assert both.tunnels == (TUNNEL,)


def test_an_exapp_has_answered_when_it_last_did_anywhere_and_caches_are_added() -> None:
    def one(answered: float | None) -> Snapshot:
        return replace(ONE, apps=(replace(HELLO, answered=answered),), caches={"sessions": 2})

    both = merged(one(100.0), [one(None), one(200.0)])
    assert [line.answered for line in both.apps] == [200.0]
    assert both.caches == {"sessions": 6}


def test_bans_are_those_of_all_once_with_the_longest_time() -> None:
    both = merged(ONE, [TWO])
    assert [(ban.address, ban.seconds) for ban in both.bans] == [("192.0.2.2", 50.0), ("192.0.2.1", 100.0)]
    assert both.ban_totals == BanTotals(7, 2, 2)


def test_an_engine_is_as_the_last_who_asked_it_says() -> None:
    second = EngineLine(24001, "", "", False, None, "", None)
    later = replace(TWO, engines=(replace(ENGINE, version="29.0", last_seen=1.8e9), second))
    assert [(line.port, line.version) for line in merged(ONE, [later]).engines] == [(24000, "29.0"), (24001, "")]


def test_the_same_app_of_two_nextclouds_is_two_lines() -> None:
    red, blue = (replace(ONE, apps=(replace(HELLO, instance=name),)) for name in ("red", "blue"))
    assert [line.instance for line in merged(red, [blue]).apps] == ["blue", "red"]


def test_each_nextcloud_is_added_up_by_itself() -> None:
    line = InstanceLine("red", ("a",), ONE.nextcloud, 1, 2, 3, NONE, SOME, {403: 1}, 4, BanTotals(1, 1, 1))
    red = replace(ONE, instances=(line,), strangers=replace(line, instance=""))
    both = merged(red, [replace(red, instances=(line, replace(line, instance="blue")))])
    found = [(one.instance, one.connections, one.tunnels_lost) for one in both.instances]
    assert found == [("red", 2, 8), ("blue", 1, 4)]
    assert both.strangers is not None
    assert both.strangers.refusals == {403: 2}


def test_what_a_process_has_counted_outlives_it_and_nothing_else() -> None:
    left = merged(TWO, [ended(ONE)])
    assert left.process.requests == 5
    assert left.process.connections == TWO.process.connections
    assert left.process.memory == TWO.process.memory
    hello = left.apps[1]
    assert hello.traffic.statuses == {name: 2 * count for name, count in SOME.statuses.items()}
    assert hello.tunnel == "not connected"
    assert left.tunnels == ()
    assert {ban.address for ban in left.bans} == {ban.address for ban in TWO.bans}
