"""Who sends frames without end holds up nobody else, is closed, and is worth one warning."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median, quantiles

import pytest

from tests.live.flooder import FLOODS
from tests.live.frp import exapp_toml, start_frpc
from tests.live.product import KEY, Product, running
from tests.live.tunnels import SHIPPED, start_tunnel
from tests.live.world import TUNNEL_PORT, World

pytestmark = pytest.mark.alone

SECONDS = 1.2
ROUNDS = 4  # the machine may do something else in one of them
PAUSE = 0.005  # seconds between the requests of the visitor
P50, P99 = 0.010, 0.050  # seconds; on a busy machine, on top of what requests take while the control is flooded


@dataclass(frozen=True)
class FloodedPair:
    """A HaRP that is visited, and one that nobody visits: a flood of that one costs the machine the same."""

    visited: Product
    control: Product
    tls: bool


@pytest.fixture(scope="module")
def secured(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FloodedPair]:
    """The visited ExApp is behind the frpc that ExApps ship."""
    with (
        running(tmp_path_factory.mktemp("secured"), world.nextcloud) as product,
        running(tmp_path_factory.mktemp("control"), world.nextcloud) as control,
        start_tunnel(product, SHIPPED, "hello", TUNNEL_PORT, world.socket) as tunnel,
    ):
        tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        yield FloodedPair(product, control, tls=True)


@pytest.fixture(scope="module")
def plain(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FloodedPair]:
    """The same without TLS."""
    directory = tmp_path_factory.mktemp("plain")
    with (
        running(directory, world.nextcloud, HP_FRP_DISABLE_TLS="true") as product,
        running(tmp_path_factory.mktemp("control"), world.nextcloud, HP_FRP_DISABLE_TLS="true") as control,
    ):
        configuration = exapp_toml(product.frp, "hello", TUNNEL_PORT, world.socket, KEY, transport__tls__enable=False)
        with start_frpc(SHIPPED, configuration, directory) as tunnel:
            tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
            yield FloodedPair(product, control, tls=False)


def visit(product: Product, seconds: float) -> list[float]:
    """One keep-alive GET every 10 ms through the tunnel; seconds each of them took."""
    visitor = http.client.HTTPConnection("127.0.0.1", product.http, timeout=10)
    took = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        visitor.request("GET", "/exapps/hello/public")
        answer = visitor.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
        took.append(time.perf_counter() - began)
        time.sleep(PAUSE)
    visitor.close()
    return took


def beside(pair: FloodedPair, flooded: Product, flood: str, *, login: bool) -> tuple[float, float]:
    """p50 and p99 of the visitor's requests while somebody floods one of the two."""
    certificates = str(flooded.certs / "frp") if pair.tls else "-"
    arguments = [str(flooded.frp), flood, str(SECONDS), certificates, "login" if login else "-"]
    with subprocess.Popen([sys.executable, "-m", "tests.live.flooder", *arguments]) as flooder:
        took = visit(pair.visited, SECONDS)
        assert flooder.wait(30) == 0
    return median(took), quantiles(took, n=100)[98]


def assert_served(pair: FloodedPair, flood: str, *, login: bool) -> None:
    """In one round at least, as what a flood costs it costs in each: soon, or as soon as while the other is flooded."""
    rounds: list[tuple[tuple[float, float], tuple[float, float]]] = []
    while len(rounds) < ROUNDS:
        p50, p99 = beside(pair, pair.visited, flood, login=login)
        if p50 <= P50 and p99 <= P99:
            return
        control = beside(pair, pair.control, flood, login=login)
        rounds.append(((p50, p99), control))
        if p50 <= P50 + control[0] and p99 <= P99 + control[1]:
            return
    raise AssertionError(f"(p50, p99 in seconds) of requests beside a flood, and with the flood elsewhere: {rounds}")


@pytest.mark.parametrize("flood", FLOODS)
def test_a_tunnel_that_floods_does_not_hold_up_others(secured: FloodedPair, flood: str) -> None:
    assert_served(secured, flood, login=True)


@pytest.mark.parametrize("flood", FLOODS)
def test_a_client_with_a_certificate_but_no_login_does_not_hold_up_others(secured: FloodedPair, flood: str) -> None:
    assert_served(secured, flood, login=False)


@pytest.mark.parametrize("flood", FLOODS)
def test_a_stranger_without_tls_does_not_hold_up_others(plain: FloodedPair, flood: str) -> None:
    assert_served(plain, flood, login=False)


def test_a_flood_is_worth_one_warning_with_its_reason(plain: FloodedPair) -> None:
    beside(plain, plain.visited, "data", login=False)
    lines = [line for line in plain.visited.process.text().splitlines() if "too many frames before the login" in line]
    assert len(lines) == 1
    assert "127.0.0.1" in lines[0]
