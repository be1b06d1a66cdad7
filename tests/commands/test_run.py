"""`harp run` as a process, and the signals that end it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.product import Product

NOBODY = "http://127.0.0.1:1"  # the Nextcloud of these tests: what they ask for needs none


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """Not started yet."""
    product = Product(tmp_path, NOBODY)
    yield product
    if product.started and product.process.running:
        product.process.kill()


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Where an ExApp listens that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


def test_it_serves_until_it_is_told_to_stop_and_reloads_meanwhile(product: Product) -> None:
    product.start()
    assert product.admin_status("/heartbeat") == 200
    product.process.signal(signal.SIGHUP)
    product.process.until(lambda: "reloaded certificates" in product.process.text(), "reload")
    assert product.stop() == 0
    assert "stopping" in product.process.text()


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_request_under_way_is_waited_for_until_a_second_signal(
    product: Product, silent: socket.socket, first: signal.Signals
) -> None:
    product.environment["HP_LOCAL_EXAPPS"] = "1024-65535"
    product.start()
    product.register("app", "127.0.0.1", silent.getsockname()[1])
    with socket.create_connection(("127.0.0.1", product.http), 10) as client:
        client.sendall(b"GET /exapps/app/x HTTP/1.1\r\nHost: cloud\r\n\r\n")
        upstream, _ = silent.accept()
        with upstream:
            product.process.signal(first)
            product.process.until(lambda: "stopping" in product.process.text(), "drain")
            assert product.status("/") == 0  # nothing new is accepted
            assert product.process.running
            product.process.signal(signal.SIGTERM)
            assert product.process.wait() == 0
