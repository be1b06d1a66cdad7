"""What an idle process holds: its size, and no library that it does not need yet."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.product import HARP, KEY, Product, running
from tests.live.tunnels import OWN, start_tunnel
from tests.live.world import TUNNEL_PORT, World

pytestmark = pytest.mark.alone

MB = 10**6
COMPILED = ".cache/compiled" in os.environ.get("PYTHONPATH", "")
# As tools show it. What is compiled reaches 37.4: a machine that maps more of that file at once must not fail.
IDLE = (39 if COMPILED else 37) << 20
USED = 80 << 20  # page, metrics and doctor, whose libraries stay
PUBLIC = "/exapps/direct/public"
REQUESTS = 2000
CONNECTIONS = 300


@pytest.fixture
def idle(world: World, tmp_path: Path) -> Iterator[Product]:
    """Started with its certificates in place, has answered a request, is ready, and asked for its health."""
    with running(tmp_path / "harp", world.nextcloud):
        pass
    with running(tmp_path / "harp", world.nextcloud) as product:
        assert product.status(PUBLIC) == 200
        for page in ("/heartbeat", "/healthz", "/readyz") * 3:
            product.process.until(lambda page=page: product.admin_status(page) == 200, page)  # type: ignore[misc]
        yield product


def test_an_idle_process_is_small_and_has_loaded_no_library_for_what_nobody_has_asked(idle: Product) -> None:
    for library in ("aiohttp", "multidict", "yarl", "cryptography", "regex", "unicodedata"):
        assert not idle.process.has_loaded(library), library
    assert idle.process.rss() <= IDLE


def test_whoever_looks_at_it_in_every_way_makes_it_no_larger_than_80_mb(idle: Product) -> None:
    for page in ("/", "/apps", "/tunnels", "/engines", "/bans", "/certificates", "/settings", "/requests") * 3:
        assert idle.admin_status(page) == 200, page
    for _ in range(3):
        assert idle.admin_status("/metrics") == idle.admin_status("/api/v1/openapi.json") == 200
        assert idle.admin_status("/api/v1/snapshot") == 200
        report = [*HARP, "doctor", "--json", "--url", idle.url]
        subprocess.run(report, env=idle.environment, capture_output=True, timeout=120, check=False)
        assert idle.admin_status("/doctor") == 200
    assert idle.process.peak_rss() <= USED


def test_a_library_comes_with_the_first_call_that_needs_it_and_a_tunnel_needs_none(idle: Product, world: World) -> None:
    assert idle.status("/exapps/app_api/heartbeat", harp_shared_key=KEY) == 200
    assert idle.process.has_loaded("aiohttp")
    with start_tunnel(idle, OWN, "hello", TUNNEL_PORT, world.socket) as tunnel:
        tunnel.until(lambda: idle.status("/exapps/hello/public") == 200, "tunnel")
    assert not idle.process.has_loaded("cryptography")


def test_requests_and_connections_that_are_over_leave_nothing_behind(idle: Product) -> None:
    def crowd() -> None:
        kept = http.client.HTTPConnection("127.0.0.1", idle.http, timeout=10)
        for _ in range(REQUESTS):
            kept.request("GET", PUBLIC)
            assert kept.getresponse().read()
        kept.close()
        for one in [socket.create_connection(("127.0.0.1", idle.http)) for _ in range(CONNECTIONS)]:
            one.close()
        idle.process.until(lambda: idle.process.descriptors() < CONNECTIONS, "end of the connections")

    crowd()
    before = idle.process.rss()
    crowd()
    assert idle.process.rss() - before < MB
