"""What the overview says is wrong, and what to do."""

from __future__ import annotations

from msgspec.structs import replace

from harp.status.conditions import Condition
from harp.status.problems import ERROR, WARNING, problems_of
from harp.status.snapshot import REPLICA, CertificateLine, MemberLine, Snapshot
from tests.fakes.facts import CLUSTER, ENGINE, HELLO, PROCESS, FakeFacts

NOW = 1.8e9
DAY = 86400.0
GOOD = FakeFacts().snapshot()


def told(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    return [(problem.level, problem.what, problem.about) for problem in problems_of(snapshot, NOW)]


def test_nothing_is_wrong_with_a_harp_that_is_well() -> None:
    assert told(GOOD) == []


def test_an_exapp_without_its_tunnel_is_named() -> None:
    broken = replace(GOOD, apps=(replace(HELLO, tunnel="not connected"),))
    assert told(broken) == [(ERROR, "ExApp hello has no tunnel on port 23000", "apps/hello")]


def test_a_nextcloud_that_does_not_answer_is_named_with_the_reason() -> None:
    nextcloud = replace(GOOD.nextcloud, condition=Condition(False, "connection refused"))
    ((level, what, _),) = told(replace(GOOD, nextcloud=nextcloud))
    assert (level, what) == (ERROR, "Nextcloud at http://cloud does not answer as it should: connection refused")


def test_an_engine_that_no_longer_answers_is_named_and_one_never_used_is_not() -> None:
    assert len(told(replace(GOOD, engines=(replace(ENGINE, trouble="refused"),)))) == 1
    assert told(replace(GOOD, engines=(replace(ENGINE, trouble="no socket", last_seen=None),))) == []


def test_a_cluster_that_cannot_be_used_is_named() -> None:
    cluster = replace(CLUSTER, trouble="connection refused")
    assert told(replace(GOOD, cluster=cluster)) == [
        (ERROR, "The cluster cannot be used: connection refused", "engines")
    ]


def test_certificates_are_named_before_and_after_their_end_the_worst_first() -> None:
    certificates = tuple(CertificateLine(f"{days}", NOW + days * DAY) for days in (100, 20, -1))
    assert told(replace(GOOD, certificates=certificates)) == [
        (ERROR, "The certificate -1 has ended", "certificates"),
        (WARNING, "The certificate 20 ends in 20 days", "certificates"),
    ]


def test_few_descriptors_and_a_late_loop_are_warnings() -> None:
    strained = replace(PROCESS, descriptors=900, most_descriptors=1000, loop_lag=2.0)
    assert [level for level, _, _ in told(replace(GOOD, process=strained))] == [WARNING, WARNING]


def test_a_closed_listener_is_named() -> None:
    assert len(told(replace(GOOD, listeners={"frp": Condition(False, "not accepting")}))) == 1


def test_a_replica_that_is_not_linked_and_a_store_that_is_away_are_named() -> None:
    own = MemberLine("a", True, True, 1, 0.0, 0.0, 0, 0, 0, 0, 0.0, kind=REPLICA, trouble="the store cannot be used")
    other = MemberLine("b", False, False, 0, 0.0, 0.0, 0, 0, 0, 0, 0.0, kind=REPLICA, trouble="Connection refused")
    assert told(replace(GOOD, members=(own, other))) == [
        (WARNING, "Replicas that start are not found: the store cannot be used", "members"),
        (WARNING, "Replica b is not linked: Connection refused", "members"),
    ]


def test_every_problem_says_what_to_do() -> None:
    broken = replace(GOOD, apps=(replace(HELLO, tunnel="not connected"),), listeners={"frp": Condition(False, "off")})
    assert all(problem.fix for problem in problems_of(broken, NOW))


def test_members_that_are_away_are_named_as_what_they_are() -> None:
    worker = MemberLine("1", False, False, 0, 0.0, 0.0, 0, 0, 0, 0, 0.0)
    gone = replace(worker, name="b", kind=REPLICA, trouble="Connection refused")
    silent = replace(gone, name="c", linked=True, trouble="it does not answer")
    alone = replace(gone, name="a", leads=True, linked=True, trouble="the store does not answer")
    assert told(replace(GOOD, members=(worker, gone, silent, alone, replace(alone, trouble="")))) == [
        (WARNING, "Worker 1 is not linked", "members"),
        (WARNING, "Replica b is not linked: Connection refused", "members"),
        (WARNING, "Replica c is not linked: it does not answer", "members"),
        (WARNING, "Replicas that start are not found: the store does not answer", "members"),
    ]
