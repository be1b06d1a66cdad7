"""One address takes no more connections than it may, whatever it does or does not send, and leaves room for others."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trustme

from tests.live.product import Product, running

ALLOWED = 20
CROWD = "127.0.0.6"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("crowds")
    certs = folder / "certs"
    certs.mkdir()
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certs / "cert.pem")
    limits = {"HP_MAX_CONNECTIONS_PER_ADDRESS": str(ALLOWED), "HP_TRUSTED_PROXY_IPS": "127.0.0.1"}
    with running(folder, "http://127.0.0.1:9", **limits) as product:
        product.process.until_listening(product.https)
        yield product


def crowd(stack: ExitStack, port: int, size: int) -> list[socket.socket]:
    """As many connections from one address; they say nothing."""
    made = [socket.create_connection(("127.0.0.1", port), 5, (CROWD, 0)) for _ in range(size)]
    for connection in made:
        stack.enter_context(connection)
        connection.setblocking(False)
    return made


def open_ones(connections: list[socket.socket]) -> int:
    """How many have not been closed by the other side."""
    count = 0
    for connection in connections:
        try:
            while connection.recv(4096):
                pass
        except BlockingIOError:
            count += 1
        except ConnectionResetError:
            pass
    return count


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_silent_connections_beyond_the_limit_are_closed_at_once(product: Product, secure: bool) -> None:
    with ExitStack() as stack:
        connections = crowd(stack, product.https if secure else product.http, 10 * ALLOWED)
        async with asyncio.timeout(1):  # well before anything has expired
            while open_ones(connections) > ALLOWED:
                await asyncio.sleep(0.02)
        assert open_ones(connections) == ALLOWED
        assert product.process.descriptors() < 5 * ALLOWED
        assert product.status("/") == 404
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        other = http.client.HTTPSConnection("127.0.0.1", product.https, timeout=5, context=context)
        other.request("GET", "/")
        assert other.getresponse().status == 404
        other.close()
