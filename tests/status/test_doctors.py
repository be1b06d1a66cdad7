"""One report about several Nextclouds."""

from __future__ import annotations

from harp.status.doctor.doctors import merged
from harp.status.doctor.report import failed, ok

PROCESS = ok("process", "the process has what it needs")
RED = failed("nextcloud", "Nextcloud answers", "red is away", "start it")
BLUE = ok("nextcloud", "Nextcloud answers", "http://blue")


def test_what_all_have_found_alike_is_told_once_and_the_rest_with_its_name() -> None:
    findings = merged([("red", [PROCESS, RED]), ("blue", [BLUE, PROCESS])])
    assert [(one.check, one.title) for one in findings] == [
        ("process", "the process has what it needs"),
        ("red:nextcloud", "red: Nextcloud answers"),
        ("blue:nextcloud", "blue: Nextcloud answers"),
    ]


def test_the_findings_of_one_alone_are_as_they_are() -> None:
    assert merged([("red", [PROCESS, RED])]) == (PROCESS, RED)
