"""HP_TUNNEL_LISTEN with a real frpc: connections that all come at once, and speak at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.product import Product, running
from tests.live.tunnels import SHIPPED, start_tunnel
from tests.live.world import TUNNEL_PORT, World

CONNECTIONS = 60
REQUEST = b"GET /public HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"


@pytest.fixture
def listening(world: World, tmp_path: Path) -> Iterator[Product]:
    with (
        running(tmp_path, world.nextcloud, HP_TUNNEL_LISTEN="true") as product,
        start_tunnel(product, SHIPPED, "hello", TUNNEL_PORT, world.socket) as tunnel,
    ):
        tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        yield product


@pytest.mark.usefixtures("listening")
def test_no_byte_of_parallel_connections_is_lost() -> None:
    for _ in range(3):
        opened = []
        for _ in range(CONNECTIONS):
            opened.append(socket.create_connection(("127.0.0.1", TUNNEL_PORT), timeout=10))
            opened[-1].sendall(REQUEST)
        for one in opened:
            with one:
                assert one.recv(64).startswith(b"HTTP/1.1 ")
