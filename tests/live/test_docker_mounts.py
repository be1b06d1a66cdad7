"""Bind mounts on a real engine: a symbolic link below an allowed directory leads nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.appapi import App
from tests.live.daemon import Daemon, running_daemon
from tests.live.engine import Engine
from tests.live.images import provide_small_exapp

pytestmark = pytest.mark.timeout(300)  # the first test makes images


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that ExApps may mount, with what an ExApp that has it may make there."""
    directory = tmp_path_factory.mktemp("allowed")
    (directory / "real" / "deep").mkdir(parents=True)
    (directory / "real" / "up").symlink_to("..")
    (directory / "root").symlink_to("/")
    (directory / "etc").symlink_to("../../../../../../../etc")
    (directory / "chain").symlink_to("root")
    (directory / "fine").symlink_to("real")
    return directory


@pytest.fixture(scope="module")
def daemon(engine: Engine, allowed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("daemon")
    with running_daemon(directory, engine, HP_EXAPP_BIND_MOUNTS_ALLOWED=str(allowed)) as daemon:
        yield daemon


def containers(daemon: Daemon) -> list[str]:
    listed = daemon.engine.call("GET", "/containers/json", query={"all": 1}).ok(200).json()
    return [name for container in listed for name in container["Names"]]


@pytest.mark.parametrize("source", ["root", "root/etc", "etc", "chain", "chain/etc/ssl", "real/up/root", "fine/up/etc"])
def test_a_link_that_leads_out_of_the_allowed_directory_is_refused(daemon: Daemon, allowed: Path, source: str) -> None:
    mount = {"source": str(allowed / source), "target": "/d", "mode": "ro"}
    with daemon.app(App("linked", provide_small_exapp(daemon.engine), port=23150, mounts=[mount])) as app:
        answer = daemon.appapi.create(app)
        assert answer.status == 400, answer.body
        assert b"on the engine's host: HP_EXAPP_BIND_MOUNTS_ALLOWED has no entry" in answer.body
        assert containers(daemon) == []


@pytest.mark.parametrize("source", ["", "real/deep", "fine", "fine/deep", "real/up/real"])
def test_what_stays_inside_is_mounted(daemon: Daemon, allowed: Path, source: str) -> None:
    mount = {"source": str(allowed / source), "target": "/d", "mode": "ro"}
    with daemon.app(App("linked", provide_small_exapp(daemon.engine), port=23150, mounts=[mount])) as app:
        daemon.appapi.create(app).ok(201)
        assert containers(daemon) == [f"/{app.container}"]
