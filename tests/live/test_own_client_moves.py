"""Our own tunnel client knows the addresses of several HaRPs, and is back at once when one of them is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.processes import Process, free_port
from tests.live.product import HARP, Product
from tests.live.tunnels import configuration
from tests.live.world import TUNNEL_PORT, World


@pytest.fixture
def pair(world: World, tmp_path: Path) -> Iterator[list[Product]]:
    """Two HaRPs for one Nextcloud, with the same certificates; nothing else joins them."""
    first = Product(tmp_path / "one", world.nextcloud)
    second = Product(tmp_path / "two", world.nextcloud, HP_CERTS_DIR=str(first.certs))
    with ExitStack() as stack:
        for product in (first, second):
            product.start()
            stack.callback(product.process.kill)
        yield [first, second]


def tunnels(product: Product) -> int:
    return len(product.told("tunnels")["tunnels"])


def test_a_request_to_the_one_that_is_left_waits_until_the_tunnel_is_there(
    pair: list[Product], world: World, tmp_path: Path
) -> None:
    """The third server is one that never was."""
    ports = [free_port(), *(product.frp for product in pair)]
    text = configuration(pair[0].certs / "frp", pair[0].frp, "hello", TUNNEL_PORT, world.socket)
    servers = ", ".join(f"localhost:{port}" for port in ports)
    file = tmp_path / "hello.toml"
    file.write_text(text.replace('"127.0.0.1"', f'"{servers}"', 1))
    with Process([*HARP, "tunnel", "-c", str(file)], tmp_path / "tunnel.log") as client:
        client.until(lambda: sum(map(tunnels, pair)) == 1, "tunnel")
        lost, left = pair if tunnels(pair[0]) else pair[::-1]
        lost.process.kill()
        assert left.status("/exapps/hello/public") == 200
        assert tunnels(left) == 1
