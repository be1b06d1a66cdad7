"""Engines by port: where they are, what they take, and how fast that is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from harp.engines.errors import EngineUnreachable
from harp.engines.inventory import REFRESH, Engines
from harp.errors import TunnelAway
from harp.net.ports import PortTable
from harp.net.targets import Tcp, TunnelPort, Unix
from harp.policy.containers import Names
from harp.policy.engines import ApiRange
from harp.settings import load
from tests.fakes.clock import Clock
from tests.fakes.engine import EngineDialer, FakeEngine

ENV = {"HP_SHARED_KEY": "a-shared-key-for-tests", "NC_INSTANCE_URL": "http://cloud"}
NAMES = Names("app")
RANGE = ApiRange((1, 24), (1, 41))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def engines(dialer: EngineDialer, clock: Clock) -> AsyncIterator[Engines]:
    engines = Engines(load(ENV), dialer, PortTable(), clock)
    yield engines
    await engines.close()


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("", Unix("/var/run/docker.sock")),
        ("/run/user/1000/docker.sock", Unix("/run/user/1000/docker.sock")),
        ("unix:///run/podman/podman.sock", Unix("/run/podman/podman.sock")),
        ("tcp://dockerd:2375", Tcp("dockerd", 2375)),
        ("tcp://[::1]:2375/", Tcp("::1", 2375)),
    ],
)
async def test_the_engine_of_this_host_is_where_the_variable_says(
    dialer: EngineDialer, host: str, target: Unix | Tcp
) -> None:
    engines = Engines(load({**ENV, "HP_DOCKER_HOST": host}), dialer, PortTable(), lambda: 0.0)
    assert engines.target(24000) == target
    assert engines.target(24001) == TunnelPort(24001)


async def test_an_engine_is_asked_once_what_it_takes(engines: Engines, fake: FakeEngine) -> None:
    assert engines.api(24000) is None
    assert await engines.learn(24000) == RANGE
    assert await engines.learn(24000) == RANGE
    assert engines.api(24000) == RANGE
    assert len(fake.called("GET", "/version")) == 1


async def test_many_who_need_to_know_ask_once(engines: Engines, fake: FakeEngine) -> None:
    answers = await asyncio.gather(*(engines.learn(24000) for _ in range(20)))
    assert set(answers) == {RANGE}
    assert len(fake.called("GET", "/version")) == 1


async def test_what_is_known_is_refreshed_behind_the_callers_back(
    engines: Engines, fake: FakeEngine, clock: Clock
) -> None:
    await engines.learn(24000)
    fake.low, fake.high = "1.44", "1.52"
    clock.move(REFRESH)
    assert engines.api(24000) == RANGE
    while engines.api(24000) == RANGE:
        await asyncio.sleep(0)
    assert engines.api(24000) == ApiRange((1, 44), (1, 52))


async def test_after_a_failure_it_is_asked_before_the_next_call(engines: Engines, fake: FakeEngine) -> None:
    await engines.learn(24000)
    fake.low, fake.high = "1.44", "1.52"
    engines.doubt(24000)
    assert engines.api(24000) is None
    assert await engines.learn(24000) == ApiRange((1, 44), (1, 52))


async def test_doubt_about_an_engine_nobody_has_asked_for_is_nothing(engines: Engines) -> None:
    engines.doubt(24050)
    assert engines.statuses() == []


async def test_an_engine_that_is_away_is_told_and_asked_again_the_next_time(
    engines: Engines, dialer: EngineDialer
) -> None:
    dialer.away = TunnelAway("no tunnel is connected for port 24001")
    with pytest.raises(EngineUnreachable, match="no tunnel is connected for port 24001"):
        await engines.learn(24001)
    assert "no tunnel" in engines.statuses()[0].trouble
    dialer.away = None
    assert await engines.learn(24001) == RANGE
    status = engines.statuses()[0]
    assert (status.port, status.trouble, status.facts is not None) == (24001, "", True)
    assert status.last_seen is not None


async def test_an_engine_without_minimum_is_taken_for_an_old_one(engines: Engines, fake: FakeEngine) -> None:
    fake.low = ""
    assert await engines.learn(24000) == RANGE


async def test_the_engine_for_deploying_is_ready_for_calls(engines: Engines, fake: FakeEngine) -> None:
    engine = await engines.engine(24000)
    await engine.exists(NAMES)
    assert fake.calls[-1].version == "1.41"
