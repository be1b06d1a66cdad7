"""The container that the tests of Docker's verbs are about."""

from __future__ import annotations

from harp.engines.docker import DockerEngine
from harp.engines.start import Pace
from harp.engines.verbs import StartOutcome
from harp.policy.container import Names
from tests.fakes.engine import FakeEngine

APP = Names("app")

CONTAINER = "nc_app_app"

RUNNING = {"Status": "running", "Running": True}


async def waited(engine: DockerEngine, fake: FakeEngine, *states: dict[str, object], log: bytes = b"") -> StartOutcome:
    container = fake.add(CONTAINER, "one")
    container.states = list(states)
    container.log = log
    return await engine.wait_for_start(APP, Pace(settle=0.0))
