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
        booted.run("cp -r /mnt/harp /srv/harp")
        yield booted


def test_harp_is_installed_starts_reloads_and_is_upgraded_as_the_page_says(debian: Booted) -> None:
    ours = [block.text for block in blocks("docs/maintenance.md") if block.runner.endswith("test_systemd_service.py")]
    install, later, upgrade, sockets = ours
    debian.run(OFFLINE + install.replace("HP_SHARED_KEY=...", f"HP_SHARED_KEY={'k' * 32}"), "/srv/harp")
    debian.until(ASK, "well")
    debian.run(later)
    debian.until("journalctl -u harp", "reloaded certificates")
    assert debian.run("stat -c %a /etc/harp.env; systemctl show -P NRestarts harp").split() == ["600", "0"]
    first = debian.run("systemctl show -P MainPID harp")
    debian.run(OFFLINE + upgrade.replace("appapi-harp==0.7.0", "."), "/srv/harp")
    debian.until(f"[ -e /proc/{first.strip()} ] || echo gone", "gone")
    assert debian.run("systemctl show -P MainPID harp") != first
    assert debian.run("systemctl is-active harp; systemctl show -P NRestarts harp").split() == ["active", "0"]
    debian.run(ASK)
    debian.run(sockets, "/srv/harp")
    debian.until(ASK, "well")
    debian.run("systemctl stop harp")  # and whoever connects starts it again
    assert (
        debian.run("exec 3<>/dev/tcp/127.0.0.1/8780; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -1 <&3")[:5]
        == "HTTP/"
    )
    debian.run("systemctl stop harp.socket harp")
    assert debian.run("systemctl show -P Result harp") == "success\n"
