"""The fixture for authors with real ExApps: two with nc_py_api as it is on PyPI, and one in Node.js, slow to start."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from harp.testing import HarpForTests, Level, LogLine, RegisteredApp, Route
from tests.fakes.environment import bare
from tests.live.peers import do_without

CACHE = Path(__file__).parents[2] / ".cache/exapp-servers"  # what scripts/install-exapp-servers has fetched
SERVERS = Path(__file__).parent / "exapp_servers"


@contextmanager
def running(app: RegisteredApp, program: Path, file: str) -> Iterator[None]:
    """The app, with what AppAPI puts into its container, and its tunnel."""
    if not program.exists():
        do_without(f"{program} not found: run scripts/install-exapp-servers")
    command = [sys.executable, "-m", "harp", "exapp", "--", str(program), str(SERVERS / file)]
    with subprocess.Popen(command, env=bare(**app.environment)) as process:
        try:
            yield
        finally:
            process.terminate()


def eventually(look: Callable[[], int], expected: int = 100) -> int:
    """Look until it is as expected, for ten seconds at most."""
    end = time.monotonic() + 10.0
    while (seen := look()) != expected and time.monotonic() < end:
        time.sleep(0.05)
    return seen


def logs_of(harp: HarpForTests, app_id: str) -> list[LogLine]:
    return [line for line in harp.logs if line.app_id == app_id]


def test_an_exapp_with_nc_py_api_runs_as_it_is(harp: HarpForTests) -> None:
    app = harp.register("colours", routes=[Route("^/me$", Level.USER)])
    harp.ocs("GET", "/cloud/groups", lambda call: {"groups": [f"friends of {call.user}"]})
    with running(app, CACHE / "venv/bin/python", "nc_py_api_app.py"):
        harp.wait_for_tunnel(app)
        assert harp.until_heartbeat(app)
        assert harp.init(app) == 200
        assert harp.enable(app) == ""
        assert logs_of(harp, "colours") == [LogLine("colours", 2, "enabled=True")]
        assert eventually(lambda: harp.progress.get("colours", [0])[-1]) == 100  # /init is answered before
        answer = harp.get(app, "/me", headers={"Cookie": harp.log_in("user")})
        assert answer.json() == {
            "user": "user",
            "users": ["admin", "user"],
            "mail": "user@example.com",
            "colour": "blue",
            "seen": "1",
            "groups": {"groups": ["friends of user"]},
            "missing": 404,
            "nextcloud": 32,
        }
        assert harp.get(app, "/me").status == 403
        assert {call.user for call in harp.calls if call.path.endswith("/preference")} == {"user"}
        assert harp.disable(app) == ""


def test_an_exapp_like_the_official_skeleton_runs_as_it_is(harp: HarpForTests) -> None:
    """`exapp_servers/skeleton.py` says in which way it is like it."""
    levels = (Route("^/user$", Level.USER), Route("^/admin$", Level.ADMIN), Route("^/ws$", Level.USER))
    app = harp.register("skeleton", routes=["^/$", "^/public$", *levels])
    with running(app, CACHE / "venv/bin/python", "skeleton.py"):
        harp.wait_for_tunnel(app)
        assert harp.until_heartbeat(app)
        assert harp.init(app) == 200
        assert harp.enable(app) == ""
        assert logs_of(harp, "skeleton") == [LogLine("skeleton", 2, "skeleton is here")]
        nobody: dict[str, str] = {}
        user, admin = {"Cookie": harp.log_in("user")}, {"Cookie": harp.log_in("admin")}
        assert f"{harp.nextcloud_url}/exapps/skeleton/ws".encode() in harp.get(app, "/").body
        assert [harp.get(app, "/public", headers=who).status for who in (nobody, user, admin)] == [200, 200, 200]
        assert [harp.get(app, "/user", headers=who).status for who in (nobody, user, admin)] == [403, 200, 200]
        assert [harp.get(app, "/admin", headers=who).status for who in (nobody, user, admin)] == [403, 403, 200]
        assert harp.get(app, "/user?status=418", headers=user).status == 418
        with connect(f"{app.url}/ws".replace("http:", "ws:"), additional_headers=user) as socket:
            assert socket.recv(timeout=10) == "tick 1 for user"
            socket.send("hello")
            end = time.monotonic() + 10.0
            while socket.recv(timeout=10) != "echo: hello":
                assert time.monotonic() < end
        assert eventually(lambda: len(logs_of(harp, "skeleton")), 2) == 2
        assert logs_of(harp, "skeleton")[1] == LogLine("skeleton", 3, "somebody left")
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"{app.url}/ws".replace("http:", "ws:"))
        assert harp.disable(app) == ""
        assert logs_of(harp, "skeleton")[2] == LogLine("skeleton", 2, "skeleton is gone")


def test_an_exapp_in_node_that_takes_a_second_to_start(harp: HarpForTests) -> None:
    app = harp.register("node", routes=["^/page$"])
    with running(app, CACHE / "node", "slow_start.js"):
        harp.wait_for_tunnel(app)
        assert harp.until_heartbeat(app)
        assert harp.init(app) == 200
        assert harp.enable(app) == ""
        assert harp.get(app, "/page").json()["hello"] == "stranger"
        assert harp.disable(app) == ""
