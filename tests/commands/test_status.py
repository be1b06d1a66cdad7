"""`harp status`: the verdict first, then what is wrong and what to do, then numbers."""

from __future__ import annotations

import time

from msgspec.structs import replace

from harp.commands.status import lines_of
from harp.status.conditions import Condition
from harp.status.problems import problems_of
from harp.status.snapshot import CertificateLine, Snapshot
from tests.fakes.facts import HELLO, FakeFacts


def shown(snapshot: Snapshot) -> list[str]:
    return list(lines_of(snapshot, problems_of(snapshot, time.time())))


def sound() -> Snapshot:
    lasting = (CertificateLine("/certs/cert.pem", time.time() + 90 * 86400 + 60),)
    return replace(FakeFacts().snapshot(), certificates=lasting, cluster=None)


def test_the_verdict_stands_first_and_then_the_numbers() -> None:
    lines = shown(sound())
    assert lines[:2] == ["Everything works.", ""]
    facts = {line[:13].strip(): line[13:] for line in lines[2:]}
    assert facts["ExApps"] == "2"
    assert facts["Tunnels"] == "1, 1 lost since the start"
    assert facts["Certificates"] == "1; /certs/cert.pem ends in 90 d"
    assert set(facts) >= {"HaRP", "Requests", "Listeners", "Nextcloud", "Engines", "Bans"}


def test_what_is_broken_comes_with_what_to_do() -> None:
    snapshot = replace(sound(), apps=(replace(HELLO, tunnel="not connected"),))
    lines = shown(snapshot)
    assert lines[0] == "Something is broken."
    assert lines[1] == "  error: ExApp hello has no tunnel on port 23000"
    assert "Is its container running" in lines[2]
    assert any("1 without their tunnel" in line for line in lines)


def test_a_nextcloud_that_does_not_answer_is_broken_and_a_certificate_that_ends_soon_is_not() -> None:
    nextcloud = replace(sound().nextcloud, condition=Condition(ok=False, detail="Connection refused"))
    assert shown(replace(sound(), nextcloud=nextcloud))[0] == "Something is broken."
    soon = (CertificateLine("/certs/cert.pem", time.time() + 5 * 86400),)
    assert shown(replace(sound(), certificates=soon))[0] == "It works, and something needs attention."
