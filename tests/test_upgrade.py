"""When the program can be replaced while it runs, and by what; tests/live/test_upgrade.py does it."""

from __future__ import annotations

import sys

import pytest

from harp.upgrade import command, objection

UNIT = {"INVOCATION_ID": "x", "NOTIFY_SOCKET": "/run/systemd/notify"}


@pytest.mark.parametrize(("env", "process", "parent"), [({}, 1, 0), ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 7, 1)])
def test_a_container_is_replaced_and_not_its_program(env: dict[str, str], process: int, parent: int) -> None:
    assert "replace the container instead" in objection(env, process, parent)


def test_a_unit_of_systemd_needs_to_be_told_of_the_new_process() -> None:
    assert objection({"INVOCATION_ID": "x"}, 4711, 7) != ""
    assert objection(UNIT, 4711, 7) == ""


def test_the_file_that_was_started_is_started_again() -> None:
    assert command()[1:] == (sys.argv[1:] if command()[0] == sys.argv[0] else sys.orig_argv[1:])
