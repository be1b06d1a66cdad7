"""`harp engine`, from the bundle to the connected engine."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.daemon import Daemon, running_daemon
from tests.live.engine import Engine
from tests.live.images import provide_harp
from tests.live.product import HARP

pytestmark = pytest.mark.timeout(300)  # the first test makes images


@pytest.fixture(scope="module")
def daemon(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A HaRP with the engine as its local one."""
    with running_daemon(tmp_path_factory.mktemp("daemon"), engine) as daemon:
        yield daemon


def harp_engine(daemon: Daemon, *arguments: str, cwd: Path | None = None) -> tuple[int, str]:
    """`harp engine` with the settings of the running HaRP: exit code and what it printed."""
    done = subprocess.run(
        [*HARP, "engine", *arguments],
        check=False,
        env=daemon.product.environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def test_the_local_engine_is_listed_and_checked(daemon: Daemon) -> None:
    code, text = harp_engine(daemon, "check", "24000")
    assert code == 0, text
    assert text.startswith("24000  ok")
    code, text = harp_engine(daemon, "list")
    assert code == 0, text
    assert re.search(r"^24000 +Docker 20\.10", text, re.MULTILINE)
    assert "1.12-1.41" in text


def test_an_engine_that_is_not_there_fails_the_check(daemon: Daemon) -> None:
    code, text = harp_engine(daemon, "check", "24099")
    assert code == 1
    assert "24099  failing  503" in text


def test_a_bundle_brings_an_engine_with_one_command(daemon: Daemon, tmp_path: Path) -> None:
    """What `harp engine add` prints to be run on the remote host, done by hand."""
    engine = daemon.engine
    image = provide_harp(engine)
    address = f"{engine.gateway}:{daemon.product.frp}"
    code, text = harp_engine(daemon, "add", "far", "--address", address, "--image", image, cwd=tmp_path)
    assert code == 0, text
    assert f"-w /engine -v /var/run/docker.sock:/var/run/docker.sock {image} tunnel -c frpc.toml" in text
    host = {"Binds": [f"{tmp_path / 'far'}:/engine:ro", f"{engine.socket}:/var/run/docker.sock"]}
    engine.run("harp-engine-far", image, Cmd=["tunnel", "-c", "frpc.toml"], WorkingDir="/engine", HostConfig=host)
    try:
        appapi = daemon.with_engine(24001)
        daemon.product.process.until(lambda: appapi.ping().status == 200, "engine")
        code, text = harp_engine(daemon, "check")
        assert code == 0, text
        assert "24001  ok" in text
        code, text = harp_engine(daemon, "list")
        assert "far (" in text
        code, text = harp_engine(daemon, "add", "farther", cwd=tmp_path)
        assert "engine port 24002" in text
    finally:
        engine.call("DELETE", "/containers/harp-engine-far", query={"force": 1}).ok(204)


def test_without_a_running_harp_that_is_said(daemon: Daemon, tmp_path: Path) -> None:
    done = subprocess.run(
        [*HARP, "engine", "list"],
        check=False,
        env={**daemon.product.environment, "HP_ADMIN_ADDRESS": f"unix:{tmp_path}/none"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "does `harp run` run here?" in done.stderr
