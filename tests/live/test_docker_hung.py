"""An engine that hangs: AppAPI is answered all the same, in time and with the reason."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.appapi import App
from tests.live.daemon import running_daemon
from tests.live.engine import Engine
from tests.live.images import provide_small_exapp

pytestmark = pytest.mark.timeout(300)  # the first test makes images


@contextmanager
def stopped(engine: Engine) -> Iterator[None]:
    """The engine's process sleeps inside the block: it accepts connections and answers nothing."""
    pid = int((engine.socket.parent / "pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        while not all(_is_stopped(thread) for thread in Path(f"/proc/{pid}/task").iterdir()):
            time.sleep(0.01)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _is_stopped(thread: Path) -> bool:
    """Has the signal reached it? One that is at work goes on for a moment, and may answer."""
    return thread.joinpath("stat").read_text().rpartition(") ")[2].startswith("T")


def test_a_hung_engine_is_told_before_appapi_gives_up(engine: Engine, tmp_path: Path) -> None:
    image = provide_small_exapp(engine)
    with running_daemon(tmp_path, engine) as daemon, daemon.app(App("hung", image, port=23140)) as app:
        appapi = daemon.appapi
        appapi.create(app).ok(201)
        began = time.monotonic()
        assert appapi.docker("GET", "/v1.44/_ping", timeout=30).status == 200
        control = time.monotonic() - began  # all that a busy machine adds
        with stopped(engine):
            for path, limit in (("/v1.44/_ping", 2.8), (f"/v1.44/containers/{app.container}/json", 15.5)):
                began = time.monotonic()
                answer = appapi.docker("GET", path, timeout=30)
                assert time.monotonic() - began < limit + control
                assert (answer.status, b"within" in answer.body[:120]) == (504, True), answer.body
        appapi.ping().ok(200)
        assert appapi.health(app) is None
