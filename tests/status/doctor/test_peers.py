"""Whom HaRP talks to, judged by what they say."""

from __future__ import annotations

import pytest

from harp.settings import Address
from harp.status.doctor.peers import engine_trouble, nextcloud_fix


@pytest.mark.parametrize(
    ("trouble", "fix"),
    [
        ("Nextcloud answers 404: is AppAPI enabled, and NC_INSTANCE_URL right?", "app:enable app_api"),
        ("Nextcloud answers 400: is the host of NC_INSTANCE_URL among its trusted_domains?", "trusted_domains"),
        ("Nextcloud is in maintenance mode", "maintenance:mode --off"),
        ("Nextcloud answers 500", "nextcloud.log"),
        ("Nextcloud cannot be reached: Connection refused", "NC_INSTANCE_URL"),
    ],
)
def test_trouble_with_nextcloud_has_a_fix_of_its_own(trouble: str, fix: str) -> None:
    assert fix in nextcloud_fix(trouble)


def test_an_engine_that_nobody_wants_is_no_fault() -> None:
    usual, other = Address("", 0, path="/var/run/docker.sock"), Address("", 0, path="/run/other.sock")
    missing = "the engine of port 24000 cannot be reached: No such file or directory"
    assert engine_trouble("engine", "", missing, usual, local=True).state == "skipped"
    assert engine_trouble("engine", "", missing, other, local=True).state == "failed"
    denied = engine_trouble("engine", "", "Permission denied", usual, local=True)
    assert "--group-add" in denied.fix
    assert "frpc" in engine_trouble("engine", "", "no tunnel", usual, local=False).fix
