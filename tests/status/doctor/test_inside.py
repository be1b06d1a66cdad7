"""What HaRP knows of itself, judged."""

from __future__ import annotations

from msgspec.structs import replace

from harp.logs import RecentWarning
from harp.status.doctor.inside import (
    Room,
    ban_findings,
    certificate_findings,
    member_findings,
    missing_tunnels,
    process_findings,
    tunnel_findings,
)
from harp.status.doctor.report import worst
from harp.status.snapshot import REPLICA, BanLine, CertificateLine, MemberLine
from tests.fakes.facts import HELLO, FakeFacts

SNAPSHOT = FakeFacts().snapshot()
ENOUGH = Room(8192, 8192, 18000)
DAY = 86400.0


def test_a_healthy_process_has_no_finding() -> None:
    assert worst(process_findings(SNAPSHOT, ENOUGH)) == "ok"


def test_few_descriptors_are_a_fault_with_the_number_to_set() -> None:
    (found,) = (one for one in process_findings(SNAPSHOT, Room(100, 8192, 18000)) if one.check == "descriptors")
    assert found.state == "failed"
    assert "nofile=18000" in found.fix
    assert "HP_MAX_CONNECTIONS=100" in found.fix


def test_a_loop_that_is_late_is_a_warning() -> None:
    late = replace(SNAPSHOT, process=replace(SNAPSHOT.process, loop_lag=2.0))
    assert worst(process_findings(late, ENOUGH)) == "warning"


def test_members_that_are_not_linked_are_named_with_the_reason() -> None:
    own = MemberLine("a", True, True, 1, 0.0, 0.0, 0, 0, 0, 0, 0.0, kind=REPLICA)
    other = replace(own, name="b", leads=False, linked=False)
    assert member_findings([]) == []
    assert [(one.state, one.cause) for one in member_findings([own])] == [("ok", "a")]
    (found,) = member_findings([replace(own, trouble="the store is away"), other])
    assert (found.state, found.cause) == ("warning", "a: the store is away; b: not linked")
    assert "HP_CLUSTER_URL" in found.fix


def test_certificates_warn_for_three_weeks() -> None:
    for days, state in ((100, "ok"), (20, "warning"), (-1, "failed")):
        (found,) = certificate_findings([CertificateLine("a.crt", days * DAY)], 0.0, {"a.crt": "make a new one"})
        assert (found.state, found.fix) == (state, "" if state == "ok" else "make a new one")


def test_a_ban_is_a_fault_when_it_may_hit_a_proxy() -> None:
    bans = [BanLine("8.8.4.4", 100.0, "wrong key"), BanLine("10.0.0.1", 100.0, "wrong key")]
    assert ban_findings(bans[:1], []).state == "ok"
    assert ban_findings(bans, bans[1:]).state == "failed"


def test_a_tunnel_that_is_connected_has_the_name_of_its_exapp() -> None:
    assert worst(tunnel_findings(SNAPSHOT, {}, [])) == "ok"
    other = replace(SNAPSHOT, tunnels=(replace(SNAPSHOT.tunnels[0], names=("helo",)),))
    (found,) = tunnel_findings(other, {}, [])
    assert 'name = "hello"' in found.fix


def test_a_tunnel_that_is_away_is_explained_by_what_was_refused() -> None:
    away = replace(SNAPSHOT, tunnels=(), apps=(replace(HELLO, tunnel="not connected"),))
    refused = RecentWarning(1.0, "tunnel refused", "metadatas.token is not the shared key", "192.0.2.1", {})
    (found, also) = tunnel_findings(away, {}, [refused])
    assert found.state == "failed"
    assert "metadatas.token is not the shared key" in found.cause
    assert "192.0.2.1" in also.cause
    assert missing_tunnels([found])


def test_an_engine_that_was_added_has_to_be_connected() -> None:
    found = {one.check: one.state for one in tunnel_findings(SNAPSHOT, {24001: "gpu1"}, [])}
    assert found == {"tunnel:hello": "ok", "tunnel:gpu1": "failed"}
