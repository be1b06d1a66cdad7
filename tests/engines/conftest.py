"""One engine in memory, and ourselves connected to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harp.engines.docker import DockerEngine
from harp.net.targets import Unix
from harp.policy.container import Owner
from tests.fakes.engine import EngineDialer, FakeEngine, serving

OWNER = Owner("one")


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def dialer(fake: FakeEngine) -> AsyncIterator[EngineDialer]:
    async with serving(fake) as dialer:
        yield dialer


@pytest.fixture
def frp_directory(tmp_path: Path) -> Path:
    """The tunnel's certificates."""
    for name in ("ca.crt", "client.crt", "client.key"):
        (tmp_path / name).write_text(f"this is {name}")
    return tmp_path


@pytest.fixture
async def engine(fake: FakeEngine, dialer: EngineDialer, frp_directory: Path) -> AsyncIterator[DockerEngine]:
    """The engine, asked what it is."""
    engine = DockerEngine("the engine of port 24000", Unix("/x"), dialer, OWNER, frp_directory, connect=2.0)
    await engine.ask(2.0)
    fake.calls.clear()
    yield engine
    await engine.close()
