"""HaRP as a service of a systemd that runs, installed as the documentation shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.blocks import ROOT, blocks
from tests.live.booted import Booted, booted_debian
from tests.live.images import wheels

pytestmark = pytest.mark.timeout(300)

CHECKOUT = ("src", "compiled", "deploy", "pyproject.toml", "README.md", "LICENSE", "requirements.lock")
OFFLINE = "export PIP_NO_INDEX=1 PIP_FIND_LINKS=/mnt/wheels PIP_CONSTRAINT=requirements.lock\n"
ASK = "set -a; . /etc/harp.env; HP_CERTS_DIR=/var/lib/harp /opt/harp/bin/harp health && echo well"


@pytest.fixture
def debian() -> Iterator[Booted]:
    volumes = [f"{ROOT / name}:/mnt/harp/{name}:ro" for name in CHECKOUT]
    with booted_debian(f"{wheels()}:/mnt/wheels:ro", *volumes) as booted:
        booted.run("cp -r /mnt/harp /root/harp")
        yield booted


def test_harp_is_installed_starts_and_reloads_as_the_page_says(debian: Booted) -> None:
    install, later = (block.text for block in blocks("docs/maintenance.md") if "systemctl" in block.text)
    debian.run(OFFLINE + install.replace("HP_SHARED_KEY=...", f"HP_SHARED_KEY={'k' * 32}"), "/root/harp")
    debian.until(ASK, "well")
    debian.run(later)
    debian.until("journalctl -u harp", "reloaded certificates")
    assert debian.run("stat -c %a /etc/harp.env; systemctl show -P NRestarts harp").split() == ["600", "0"]
    debian.run("systemctl stop harp")
    assert debian.run("systemctl show -P Result harp") == "success\n"
