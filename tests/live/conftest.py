"""Fixtures of the live suites: the stand-ins once per run, a real `harp run` with a tunnel once per module."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Mapping

import pytest

from harp.loops import event_loop
from tests.live.engine import Engine, private_engine
from tests.live.product import Product, running
from tests.live.tunnels import OWN, start_tunnel
from tests.live.world import TUNNEL_PORT, World, raise_descriptor_limit


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """What runs in the test's own process runs on the loop of `harp run`; unit tests use asyncio's."""
    return {"production": event_loop()}


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine with nothing in it, once per run: whoever puts something in takes it out again."""
    with private_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Nextcloud and the ExApps "direct" and "hello"."""
    raise_descriptor_limit(10_000)
    world = World(tmp_path_factory.mktemp("world"))
    yield world
    world.process.stop()


@pytest.fixture(scope="module")
def product(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A running HaRP that serves both ExApps; "hello" through our own tunnel client."""
    with (
        running(tmp_path_factory.mktemp("product"), world.nextcloud, HP_TRUSTED_PROXY_IPS="127.0.0.1") as product,
        start_tunnel(product, OWN, "hello", TUNNEL_PORT, world.socket) as tunnel,
    ):
        tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        yield product
