"""The fixture for ExApp authors, used as they use it: with the sample ExApp and our own tunnel client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from harp.testing import HarpForTests, Level, Route
from tests.fakes.environment import bare

pytest_plugins = ["pytester"]

SAMPLE = Path(__file__).parents[2] / "exapp/sample/main.py"


@contextmanager
def sample(environment: Mapping[str, str], *, tunnel: bool) -> Iterator[None]:
    """The sample ExApp with what AppAPI puts into its container."""
    runner = [sys.executable, "-m", "harp", "exapp", "--"] if tunnel else []
    command = [*runner, sys.executable, str(SAMPLE)]
    with subprocess.Popen(
        command, env=bare(**environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def test_an_exapp_behind_a_tunnel_is_asked_through_harp(harp: HarpForTests) -> None:
    routes: list[str | Route] = ["^/open$", Route("^/members$", Level.USER)]
    app = harp.register("sample", routes=routes)
    with sample(app.environment, tunnel=True):
        harp.wait_for_tunnel(app)
        assert harp.until_heartbeat(app)
        assert harp.init(app) == 200
        assert harp.enable(app) == ""
        assert harp.get(app, "/open").json() == {"hello": "stranger", "path": "/open"}
        assert harp.get(app, "/members").status == 403
        assert harp.get(app, "/other").status == 404
        cookie = {"Cookie": harp.log_in("user")}
        assert harp.get(app, "/members", headers=cookie).json() == {"hello": "user", "path": "/members"}
        assert harp.disable(app) == ""
    harp.forget(app)
    assert harp.get(app, "/open").status == 404


def test_an_exapp_that_is_reached_directly_needs_no_tunnel(harp: HarpForTests) -> None:
    app = harp.register("direct", direct_port=harp.free_tcp_port())
    assert "HP_SHARED_KEY" not in app.environment
    with sample(app.environment, tunnel=False):
        assert harp.until_heartbeat(app)
        assert harp.get(app, "/").status == 200


def test_who_is_not_there_does_not_beat(harp: HarpForTests) -> None:
    app = harp.register("absent")
    with pytest.raises(TimeoutError, match="absent"):
        harp.wait_for_tunnel(app, 0.05)
    assert not harp.until_heartbeat(app, 0.05)


def test_the_fixture_comes_with_the_package(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing_is_loaded_before_it_is_asked_for():
            assert "harp.testing.fixture" not in sys.modules
            assert "aiohttp" not in sys.modules

        def test_it_is_there(harp):
            assert harp.url.startswith("http://127.0.0.1:")
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
