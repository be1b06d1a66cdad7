"""AppAPI's order of calls on a real Docker engine: from `create` until the container has started."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.live.appapi import App
from tests.live.daemon import running_daemon
from tests.live.engine import private_engine
from tests.live.images import provide_small_exapp
from tests.live.peers import find

from benchmarks.peers import Peers
from benchmarks.trial import OURS, Contenders, Effort, Limit, Row, Trial

DEPLOYS = 20
PORT = 23900


def trials(peers: Peers, effort: Effort) -> list[Trial]:
    """The row about deploys, where an engine can run."""
    if find("dockerd") is None:
        peers.missing["deploys"] = "docker.io"
        return []
    row = Row("AppAPI deploys an ExApp on Docker, create to started", "ms", Limit(700))

    @contextmanager
    def prepare() -> Iterator[Contenders]:
        with private_engine() as engine, running_daemon(peers.directory / "deploys", engine) as daemon:
            app = App("bench_deploy", provide_small_exapp(engine), PORT)

            def deploy() -> tuple[float]:
                with daemon.app(app):
                    appapi = daemon.appapi
                    began = time.monotonic()
                    appapi.create(app).ok(201)
                    appapi.install_certificates(app).ok(204)
                    appapi.start(app).ok(204)
                    started = appapi.wait_for_start(app)["started"]
                    took = time.monotonic() - began
                    if not started:
                        raise RuntimeError("the ExApp has not started")
                    appapi.heartbeat(app)
                return (took * 1000,)

            yield {OURS: deploy}

    return [Trial((row,), prepare, DEPLOYS if effort.rounds > 1 else 5)]
