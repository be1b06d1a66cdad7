"""Who sends frames without end holds up nobody else, is closed, and is worth one warning."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import pytest

from tests.live.flooder import FLOODS
from tests.live.frp import exapp_toml, start_frpc
from tests.live.product import KEY, Product, running
from tests.live.tunnels import SHIPPED, start_tunnel
from tests.live.world import TUNNEL_PORT, World

pytestmark = pytest.mark.alone

SECONDS, QUIET = 2.0, 0.5
ROUNDS = 4  # the machine may do something else in one of them
PAUSE = 0.005  # seconds between the requests of the visitor
P50, P99 = 0.010, 0.050  # seconds, on top of what the machine takes without a flood


@pytest.fixture(scope="module")
def secured(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A HaRP whose ExApp is behind the frpc that ExApps ship."""
    with (
        running(tmp_path_factory.mktemp("secured"), world.nextcloud) as product,
        start_tunnel(product, SHIPPED, "hello", TUNNEL_PORT, world.socket) as tunnel,
    ):
        tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        yield product


@pytest.fixture(scope="module")
def plain(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The same without TLS."""
    directory = tmp_path_factory.mktemp("plain")
    with running(directory, world.nextcloud, HP_FRP_DISABLE_TLS="true") as product:
        configuration = exapp_toml(product.frp, "hello", TUNNEL_PORT, world.socket, KEY, transport__tls__enable=False)
        with start_frpc(SHIPPED, configuration, directory) as tunnel:
            tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
            yield product


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


def beside(product: Product, flood: str, certificates: Path | None, *, login: bool) -> tuple[float, float]:
    """How much longer the visitor's requests take while somebody floods: p50 and p99."""
    quiet = visit(product, QUIET)
    arguments = [str(product.frp), flood, str(SECONDS), str(certificates or "-"), "login" if login else "-"]
    with subprocess.Popen([sys.executable, "-m", "tests.live.flooder", *arguments]) as flooder:
        took = visit(product, SECONDS)
        assert flooder.wait(30) == 0
    return median(took) - median(quiet), quantiles(took, n=100)[98] - max(quiet)


def assert_served(product: Product, flood: str, certificates: Path | None, *, login: bool) -> None:
    """In one round at least: what a flood costs, it costs in each."""
    rounds: list[tuple[float, float]] = []
    while len(rounds) < ROUNDS:
        rounds.append(beside(product, flood, certificates, login=login))
        if rounds[-1][0] <= P50 and rounds[-1][1] <= P99:
            return
    raise AssertionError(f"longer by (p50, p99 in seconds): {rounds}")


@pytest.mark.parametrize("flood", FLOODS)
def test_a_tunnel_that_floods_does_not_hold_up_others(secured: Product, flood: str) -> None:
    assert_served(secured, flood, secured.certs / "frp", login=True)


@pytest.mark.parametrize("flood", FLOODS)
def test_a_client_with_a_certificate_but_no_login_does_not_hold_up_others(secured: Product, flood: str) -> None:
    assert_served(secured, flood, secured.certs / "frp", login=False)


@pytest.mark.parametrize("flood", FLOODS)
def test_a_stranger_without_tls_does_not_hold_up_others(plain: Product, flood: str) -> None:
    assert_served(plain, flood, None, login=False)


def test_a_flood_is_worth_one_warning_with_its_reason(plain: Product) -> None:
    beside(plain, "data", None, login=False)
    lines = [line for line in plain.process.text().splitlines() if "too many frames before the login" in line]
    assert len(lines) == 1
    assert "127.0.0.1" in lines[0]
